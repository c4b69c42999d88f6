// Reads CEF lines on stdin, prints what ParCEFone makes of each as JSON. It checks the types of the standard keys and does NOT undo escapes.
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fluenda.parcefone.parser.CEFParser;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.util.Date;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;

class ParseCef {
    static Map<String, Object> plain(Map<String, Object> fields) {
        var out = new TreeMap<String, Object>();
        fields.forEach((k, v) -> {
            if (v instanceof InetAddress a) v = a.getHostAddress();
            else if (v instanceof Date d) v = d.getTime();
            else if (v != null && !(v instanceof Number)) v = v.toString();
            out.put(k, v);
        });
        return out;
    }

    public static void main(String[] args) throws Exception {
        var parser = new CEFParser();
        var json = new ObjectMapper();
        var out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = in.readLine()) != null; ) {
            var result = new TreeMap<String, Object>();
            try {
                var event = parser.parse(line, false, true, Locale.ROOT);
                if (event == null) throw new IllegalArgumentException("not CEF");
                result.put("header", plain(event.getHeader()));
                result.put("extensions", plain(event.getExtension(true, true)));
            } catch (Exception e) {
                result.put("error", e.toString());
            }
            out.println(json.writeValueAsString(result));
        }
    }
}
