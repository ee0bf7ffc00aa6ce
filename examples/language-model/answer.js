const url = new URLSearchParams(location.search).get('url') ?? 'http://127.0.0.1:8080';
const { connect } = await import(url + '/client.js');
const { form, halt, text, end } = window;
const post = async (path, body) => (await fetch(path, { method: 'POST', body: JSON.stringify(body) })).json();
let reader;

form.onsubmit = async (event) => {
  event.preventDefault();
  location.hash = (await post('ask', { question: form.question.value })).id;
};
halt.onclick = () => post('stop', { id: location.hash.slice(1) });

/** Reads the answer that the address names, from its first token. */
function read() {
  reader?.close();
  text.textContent = end.textContent = '';
  const id = location.hash.slice(1);
  halt.hidden = !id;
  if (!id) return;
  const finish = (words) => {
    end.textContent = words;
    halt.hidden = true;
    reader.close();
  };
  reader = connect({
    url,
    streams: [`topic:answers:${id}`],
    after: '0-0',
    onGap: () => finish('The beginning of this answer is no longer kept.'),
  });
  reader.on('token', ({ data }) => text.append(data));
  reader.on('end', ({ data }) => finish(data.stopped ? `Stopped after ${data.tokens} tokens.` : `${data.tokens} tokens.`));
  reader.on('whimbrel:abandoned', () => finish('The answer breaks off here.'));
}

onhashchange = read;
read();
