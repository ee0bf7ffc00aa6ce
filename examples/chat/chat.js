const query = new URLSearchParams(location.search);
const [me, url] = [query.get('name') ?? 'guest', query.get('url') ?? 'http://127.0.0.1:8080'];
const { connect } = await import(url + '/client.js');
const { here, lines, form, typing } = window;
const room = 'topic:chat:lobby';

// The device makes this page a member. The room begins with what was said last.
const chat = connect({ url, streams: [`device:${me}`], members: true });
chat.subscribe(room, 'last:50');

chat.on('message', ({ data }) => {
  lines.append(Object.assign(document.createElement('li'), { textContent: `${data.from}: ${data.text}` }));
  typing.textContent = '';
});
chat.on('typing', ({ data }) => { typing.textContent = `${data} is typing`; });
chat.presence(room).subscribe((members) => { here.textContent = members.map(({ device }) => device).sort().join(', '); });

form.oninput = () => chat.publish(room, me, { type: 'typing', ephemeral: true, echo: false }).catch(() => {});
form.onsubmit = (event) => {
  event.preventDefault();
  chat.publish(room, { from: me, text: form.text.value });
  form.reset();
};
