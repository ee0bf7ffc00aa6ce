// Socket.IO as its documentation recommends it for production: WebSocket only, the native masking of
// bufferutil, the first HTTP request of each connection forgotten, and its Redis adapter when there is a
// REDIS_URL. A client joins the room that its query names; POST /publish/ROOM emits the body to it.
import { createServer } from "node:http";
import { Redis } from "ioredis";
import { createAdapter } from "@socket.io/redis-adapter";
import { Server } from "socket.io";

const http = createServer((request, response) => {
  const room = request.url.startsWith("/publish/") ? decodeURIComponent(request.url.slice(9)) : undefined;
  if (request.method !== "POST" || !room) {
    response.writeHead(404).end();
    return;
  }
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    io.to(room).emit("event", JSON.parse(Buffer.concat(parts)));
    response.writeHead(201, { "content-length": 0 }).end();
  });
});
// The publishers' connections stay open for the whole run.
http.keepAliveTimeout = 75_000;

const io = new Server(http, { transports: ["websocket"], serveClient: false });
if (process.env.REDIS_URL) {
  const redis = new Redis(process.env.REDIS_URL);
  io.adapter(createAdapter(redis, redis.duplicate()));
}
io.on("connection", (socket) => {
  socket.join(socket.handshake.query.room);
  // Not before: the query is read from it.
  socket.conn.request = null;
});
http.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => {
  console.error(`listening on http://127.0.0.1:${http.address().port}`);
});
