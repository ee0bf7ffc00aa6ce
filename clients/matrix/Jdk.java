import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.WebSocket;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ThreadLocalRandom;

/**
 * What the JDK itself has, as somebody would use it.
 *
 * <p>{@code java Jdk.java NAME URL TOPIC} prints {"id","data"} of each event, a line each, from the earliest on.
 */
class Jdk {
  static final HttpClient HTTP = HttpClient.newHttpClient();
  static String last = "";

  static void emit(String id, String data) {
    last = id;
    var escaped = data.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n").replace("\r", "\\r");
    System.out.println("{\"id\":\"" + id + "\",\"data\":\"" + escaped + "\"}");
  }

  /** Lines of an event stream; the id goes back as Last-Event-ID. */
  static void events(String url, String topic) throws Exception {
    var request = HttpRequest.newBuilder(URI.create(url + "/v1/sse?topic=" + topic + "&after=earliest"));
    if (!last.isEmpty()) request.header("Last-Event-ID", last);
    var response = HTTP.send(request.build(), BodyHandlers.ofLines());
    if (response.statusCode() != 200) return;
    var fields = new String[] {"", "", ""};
    response.body().forEach(line -> {
      if (line.startsWith("id: ")) fields[0] = line.substring(4);
      if (line.startsWith("event: ")) fields[1] = line.substring(7);
      if (line.startsWith("data: ")) fields[2] += line.substring(6) + "\n";
      if (!line.isEmpty()) return;
      if (fields[1].isEmpty() && !fields[2].isEmpty()) emit(fields[0], fields[2]);
      fields[1] = fields[2] = "";
    });
  }

  static void socket(String url, String topic) throws Exception {
    var after = last.isEmpty() ? "earliest" : last;
    var over = new CompletableFuture<Void>();
    var address = url.replaceFirst("http", "ws") + "/v1/ws?topic=" + topic + "&after=" + after;
    HTTP.newWebSocketBuilder().buildAsync(URI.create(address), new WebSocket.Listener() {
      final StringBuilder text = new StringBuilder();

      /** A frame may come in parts. */
      public CompletionStage<?> onText(WebSocket socket, CharSequence part, boolean isLast) {
        text.append(part);
        if (isLast) {
          frame(text.toString());
          text.setLength(0);
        }
        socket.request(1);
        return null;
      }

      public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
        over.complete(null);
        return null;
      }

      public void onError(WebSocket socket, Throwable error) {
        over.complete(null);
      }
    }).join();
    over.join();
  }

  /** The JDK reads no JSON. In an event the data stands last. */
  static void frame(String text) {
    if (!text.startsWith("{\"op\":\"event\"")) return;
    var id = text.split("\"id\":\"", 2)[1].split("\"", 2)[0];
    var data = text.split("\"data\":", 2)[1];
    emit(id, data.substring(0, data.length() - 1));
  }

  public static void main(String[] arguments) throws Exception {
    for (; ; Thread.sleep(ThreadLocalRandom.current().nextInt(500, 1500))) {
      try {
        if (arguments[0].equals("jdk-http")) events(arguments[1], arguments[2]);
        else socket(arguments[1], arguments[2]);
      } catch (Exception error) {
        // The next attempt goes on where this one ended.
      }
    }
  }
}
