import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Arrays;
import java.util.Random;

/** Records three chunks with Java's HTTP client as it is, and reads them back. Arguments: URL, session, two tokens. */
public class Put {
    public static void main(String[] arguments) throws Exception {
        String chunks = arguments[0] + "/api/v1/sessions/" + arguments[1] + "/chunks/";
        HttpClient client = HttpClient.newHttpClient();
        int[] sizes = {20, 0, 300_000};
        for (int index = 0; index < sizes.length; index++) {
            byte[] content = new byte[sizes[index]];
            new Random(index).nextBytes(content);
            HttpRequest put = request(chunks + index, arguments[2])
                    .PUT(HttpRequest.BodyPublishers.ofByteArray(content)).build();
            HttpResponse<String> stored = client.send(put, HttpResponse.BodyHandlers.ofString());
            HttpRequest get = request(chunks + index, arguments[3]).build();
            HttpResponse<byte[]> read = client.send(get, HttpResponse.BodyHandlers.ofByteArray());
            boolean same = Arrays.equals(content, read.body());
            System.out.println(stored.statusCode() + " " + read.statusCode() + " " + (same ? "same" : "other"));
        }
    }

    private static HttpRequest.Builder request(String url, String token) {
        return HttpRequest.newBuilder(URI.create(url)).header("Authorization", "Bearer " + token);
    }
}
