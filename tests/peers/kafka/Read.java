// Reads a topic from the start with Apache Kafka's own Java client, one JSON object a line. Usage: Read PORT TOPIC COUNT TIMEOUT_S
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

class Read {
    static String text(byte[] bytes) { // strict UTF-8, else base64 with a marker
        if (bytes == null) return null;
        try {
            return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
        } catch (CharacterCodingException e) {
            return "base64:" + Base64.getEncoder().encodeToString(bytes);
        }
    }

    public static void main(String[] args) throws Exception {
        String topic = args[1];
        int count = Integer.parseInt(args[2]);
        long end = System.nanoTime() + Long.parseLong(args[3]) * 1_000_000_000L;
        var config = new Properties();
        config.put("bootstrap.servers", "127.0.0.1:" + args[0]);
        config.put("isolation.level", "read_committed");
        config.put("auto.offset.reset", "earliest");
        config.put("enable.auto.commit", "false");
        config.put("allow.auto.create.topics", "false");
        var json = new ObjectMapper();
        var out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        int seen = 0;
        try (var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            var parts = new ArrayList<TopicPartition>();
            consumer.partitionsFor(topic, Duration.ofSeconds(10)).forEach(p -> parts.add(new TopicPartition(topic, p.partition())));
            consumer.assign(parts);
            consumer.seekToBeginning(parts);
            while (seen < count && System.nanoTime() < end) {
                for (var r : consumer.poll(Duration.ofMillis(200))) {
                    List<String[]> headers = new ArrayList<>();
                    r.headers().forEach(h -> headers.add(new String[] {h.key(), text(h.value())}));
                    var line = new LinkedHashMap<String, Object>();
                    line.put("partition", r.partition());
                    line.put("offset", r.offset());
                    line.put("timestamp", r.timestamp());
                    line.put("key", text(r.key()));
                    line.put("headers", headers);
                    line.put("value", text(r.value()));
                    out.println(json.writeValueAsString(line));
                    seen++;
                }
            }
        }
        out.flush();
        if (seen < count) {
            System.err.println("only " + seen + " of " + count + " records");
            System.exit(3);
        }
    }
}
