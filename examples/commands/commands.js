const query = new URLSearchParams(location.search);
const [lamp, url] = [`lamp-${query.get('lamp') ?? 'hall'}`, query.get('url') ?? 'http://127.0.0.1:8080'];
const { connect } = await import(url + '/client.js');
const { state, on, off, commands } = window;
const WORDS = { stored: 'waits for the lamp', told: 'is with the lamp', acknowledged: 'is done' };

// The newest state, then each change.
const whimbrel = connect({ url, streams: [`topic:${lamp}`], after: 'last:1' });
whimbrel.on('state', ({ data }) => { state.textContent = data.on ? 'on' : 'off'; });

on.onclick = () => send(true);
off.onclick = () => send(false);

/** Sends a command, and shows how far it gets: a request waits until the lamp acknowledges it, or half a minute. */
async function send(on) {
  const row = document.createElement('li');
  commands.prepend(row);
  const show = (words) => { row.textContent = `Switch ${on ? 'on' : 'off'}: ${words}`; };
  try {
    const { id } = await whimbrel.publish(`device:${lamp}`, { on }, { type: 'switch', ttl: 60 });
    for (let wait = 0, status; status !== 'acknowledged'; wait = 30) {
      const answer = await fetch(`${url}/v1/devices/${lamp}/events/${id}?wait=${wait}`);
      if (answer.status === 404) return show('came too late, and is dropped');
      ({ status } = await answer.json());
      show(WORDS[status]);
    }
  } catch (error) {
    show(error.message);
  }
}
