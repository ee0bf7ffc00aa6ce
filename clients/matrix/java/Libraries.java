import com.launchdarkly.eventsource.ConnectStrategy;
import com.launchdarkly.eventsource.ErrorStrategy;
import com.launchdarkly.eventsource.EventSource;
import com.launchdarkly.eventsource.MessageEvent;
import com.launchdarkly.eventsource.StreamException;
import jakarta.ws.rs.client.Client;
import jakarta.ws.rs.client.ClientBuilder;
import jakarta.ws.rs.sse.SseEventSource;
import java.net.URI;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okhttp3.sse.EventSourceListener;
import okhttp3.sse.EventSources;
import org.java_websocket.client.WebSocketClient;
import org.java_websocket.handshake.ServerHandshake;

/**
 * Clients that Maven has, as somebody would use them.
 *
 * <p>{@code java -cp 'CLASSES:JARS/*' Libraries NAME URL TOPIC} prints {"id","data"} of each event, a line each, from the
 * earliest on.
 */
class Libraries {
  static volatile String last = "";

  static synchronized void emit(String id, String data) {
    last = id;
    var escaped = data.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n").replace("\r", "\\r");
    System.out.println("{\"id\":\"" + id + "\",\"data\":\"" + escaped + "\"}");
  }

  static boolean isPlain(String type) {
    return type == null || type.isEmpty() || type.equals("message");
  }

  /** Silent but for pings, so no time-out of reads. It does not come back by itself. */
  static final OkHttpClient OKHTTP = new OkHttpClient.Builder().readTimeout(0, TimeUnit.SECONDS).build();

  static void okhttpSse(String address) throws Exception {
    var over = new CompletableFuture<Void>();
    var request = new Request.Builder().url(address);
    if (!last.isEmpty()) request.header("Last-Event-ID", last);
    EventSources.createFactory(OKHTTP).newEventSource(request.build(), new EventSourceListener() {
      @Override
      public void onEvent(okhttp3.sse.EventSource source, String id, String type, String data) {
        if (isPlain(type)) emit(id, data);
      }

      @Override
      public void onClosed(okhttp3.sse.EventSource source) {
        over.complete(null);
      }

      @Override
      public void onFailure(okhttp3.sse.EventSource source, Throwable error, Response response) {
        over.complete(null);
      }
    });
    over.join();
  }

  /** It comes back by itself, with the last id, where errors are told to go on. */
  static void okhttpEventSource(String address) throws StreamException {
    var source = new EventSource.Builder(ConnectStrategy.http(URI.create(address)))
        .errorStrategy(ErrorStrategy.alwaysContinue()).build();
    for (MessageEvent event : source.messages()) {
      if (isPlain(event.getEventName())) emit(event.getLastEventId(), event.getData());
    }
  }

  /** It comes back by itself after an end, and gives up at an answer that is no event stream. */
  static void jersey(String url, String topic) throws Exception {
    Client client = ClientBuilder.newClient();
    var target = client.target(url + "/v1/sse").queryParam("topic", topic);
    target = target.queryParam("after", last.isEmpty() ? "earliest" : last);
    try (var source = SseEventSource.target(target).reconnectingEvery(1, TimeUnit.SECONDS).build()) {
      source.register(event -> {
        if (isPlain(event.getName())) emit(event.getId(), event.readData());
      });
      source.open();
      while (source.isOpen()) Thread.sleep(200);
    }
  }

  static void socket(String url, String topic) throws Exception {
    var after = last.isEmpty() ? "earliest" : last;
    var address = url.replaceFirst("http", "ws") + "/v1/ws?topic=" + topic + "&after=" + after;
    var over = new CompletableFuture<Void>();
    new WebSocketClient(URI.create(address)) {
      @Override
      public void onOpen(ServerHandshake handshake) {}

      @Override
      public void onMessage(String text) {
        if (!text.startsWith("{\"op\":\"event\"")) return;
        var id = text.split("\"id\":\"", 2)[1].split("\"", 2)[0];
        // In an event the data stands last.
        var data = text.split("\"data\":", 2)[1];
        emit(id, data.substring(0, data.length() - 1));
      }

      @Override
      public void onClose(int code, String reason, boolean remote) {
        over.complete(null);
      }

      @Override
      public void onError(Exception error) {
        over.complete(null);
      }
    }.connectBlocking();
    over.join();
  }

  public static void main(String[] arguments) throws Exception {
    var address = arguments[1] + "/v1/sse?topic=" + arguments[2] + "&after=earliest";
    for (; ; Thread.sleep(ThreadLocalRandom.current().nextInt(500, 1500))) {
      try {
        switch (arguments[0]) {
          case "okhttp-sse" -> okhttpSse(address);
          case "okhttp-eventsource" -> okhttpEventSource(address);
          case "jersey" -> jersey(arguments[1], arguments[2]);
          case "java-websocket" -> socket(arguments[1], arguments[2]);
          default -> throw new IllegalArgumentException(arguments[0]);
        }
      } catch (Exception error) {
        System.err.println(error);
      }
    }
  }
}
