const query = new URLSearchParams(location.search);
const [order, url] = [query.get('order') ?? '17', query.get('url') ?? 'http://127.0.0.1:8080'];
const { connect } = await import(url + '/client.js');
const { number, steps, courier, connection } = window;
number.textContent = order;

// From the first event on: the topic is the order's whole story, so nothing has to be loaded beside it.
const events = connect({
  url,
  streams: [`topic:orders:${order}`],
  after: 'earliest',
  onStatus: (now) => { connection.textContent = now === 'open' ? '' : 'connecting …'; },
});

events.on('step', ({ time, data }) => {
  const row = document.createElement('li');
  row.append(Object.assign(document.createElement('time'), { dateTime: time, textContent: new Date(time).toLocaleTimeString() }), ` ${data.text}`);
  steps.append(row);
});

events.on('position', ({ data }) => {
  courier.hidden = false;
  courier.textContent = `The courier is ${data.km} km away`;
});
