const url = new URLSearchParams(location.search).get('url') ?? 'http://127.0.0.1:8080';
const { connect } = await import(url + '/client.js');
const { board, total } = window;
const whimbrel = connect({ url, streams: ['topic:machines'] });

// The snapshot brings its own cursor; events go on from there. After a gap it is loaded again.
const machines = whimbrel.state(
  async () => {
    const { cursor, machines } = await (await fetch('machines.json')).json();
    return { cursor, value: machines };
  },
  (value, { data: { machine, ...now } }) => ({ ...value, [machine]: now }),
);

machines.subscribe((value) => {
  if (!value) return;
  const names = Object.keys(value).sort();
  while (board.children.length < names.length) {
    board.append(Object.assign(document.createElement('div'), { innerHTML: '<b></b><meter min="0" max="100" high="85"></meter><span></span>' }));
  }
  names.forEach((name, number) => {
    const [title, meter, parts] = board.children[number].children;
    title.textContent = name;
    meter.value = value[name].load;
    parts.textContent = `${value[name].parts} parts`;
  });
  total.textContent = names.reduce((sum, name) => sum + value[name].parts, 0);
});
