// Sends one request to the URL that is its argument. OpenTelemetry's agent adds the headers.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

class Call {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        var body = HttpRequest.BodyPublishers.ofString("{}");
        client.send(HttpRequest.newBuilder(URI.create(arguments[0])).POST(body).build(), BodyHandlers.ofString());
    }
}
