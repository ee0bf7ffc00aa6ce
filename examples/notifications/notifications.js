const query = new URLSearchParams(location.search);
const [user, url] = [query.get('user') ?? 'ann', query.get('url') ?? 'http://127.0.0.1:8080'];
const { connect } = await import(url + '/client.js');
const { list, badge, none, seen } = window;
const device = `device:${user}`;
const unseen = new Map(); // id -> text

// Behind what was acknowledged, wherever that was.
const inbox = connect({ url, streams: [device], after: 'ack' });

inbox.on('message', ({ id, data }) => {
  unseen.set(id, data.text);
  draw();
});

// Another screen acknowledged something: it says so to whoever is connected now.
inbox.on('seen', ({ data }) => {
  for (const id of unseen.keys()) if (!isAfter(id, data.id)) unseen.delete(id);
  draw();
});

seen.onclick = async () => {
  const id = [...unseen.keys()].at(-1);
  await inbox.ack({ stream: device, id });
  await inbox.publish(device, { id }, { type: 'seen', ephemeral: true });
};

/** Ids are milliseconds and a number within them. */
function isAfter(a, b) {
  const [x, y] = [a, b].map((id) => id.split('-').map(Number));
  return x[0] === y[0] ? x[1] > y[1] : x[0] > y[0];
}

function draw() {
  list.replaceChildren(...[...unseen.values()].map((text) => Object.assign(document.createElement('li'), { textContent: text })));
  badge.textContent = unseen.size;
  badge.hidden = seen.hidden = unseen.size === 0;
  none.hidden = unseen.size > 0;
}
