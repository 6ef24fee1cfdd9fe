// Sends a request to a service of its own, which logs and fails. OpenTelemetry's agent makes the spans and exports the log records.

import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.logging.Logger;

class Send {
    private static final Logger LOGGER = Logger.getLogger("orders");

    public static void main(String[] arguments) throws Exception {
        var server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/charge", exchange -> {
            LOGGER.warning("order 7 was not charged");
            throw new IllegalStateException("card expired");
        });
        server.start();
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        var url = "http://127.0.0.1:" + server.getAddress().getPort() + "/charge";
        try {
            var body = HttpRequest.BodyPublishers.ofString("{}");
            client.send(HttpRequest.newBuilder(URI.create(url)).POST(body).build(), BodyHandlers.ofString());
        } catch (java.io.IOException closed) {
            // The server closes the connection of a request that failed.
        } finally {
            server.stop(0);
        }
    }
}
