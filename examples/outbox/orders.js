const url = new URLSearchParams(location.search).get('url') ?? 'http://127.0.0.1:8080';
const { connect } = await import(url + '/client.js');
const { order, orders, refusal, connection } = window;

const events = connect({
  url,
  streams: ['topic:orders'],
  after: 'earliest',
  onStatus: (now) => { connection.textContent = now === 'open' ? '' : 'connecting …'; },
});

events.on('placed', ({ time, data }) => {
  const row = document.createElement('li');
  row.append(Object.assign(document.createElement('time'), { dateTime: time, textContent: new Date(time).toLocaleTimeString() }));
  row.append(` #${data.order}: ${data.pieces} × ${data.item}`);
  orders.prepend(row);
});

// The answer shows whether the order stands. That it is shown is the event's affair, here and on every other screen.
order.addEventListener('submit', async (submit) => {
  submit.preventDefault();
  const body = JSON.stringify(Object.fromEntries(new FormData(order)));
  const answer = await fetch('orders', { method: 'POST', body });
  refusal.textContent = answer.ok ? '' : (await answer.json()).error;
});
