import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.serialization.*;

/** Kafka's own client on a guarded broker: args are its address and a PEM file to trust. */
public class Guarded {
    static Map<String, Object> config(String[] args, String mechanism, String password) {
        Map<String, Object> c = new HashMap<>();
        c.put("bootstrap.servers", args[0]);
        c.put("security.protocol", "SASL_SSL");
        c.put("ssl.truststore.type", "PEM");
        c.put("ssl.truststore.location", args[1]);
        c.put("sasl.mechanism", mechanism);
        String module = mechanism.equals("PLAIN") ? "plain.PlainLoginModule" : "scram.ScramLoginModule";
        c.put("sasl.jaas.config", "org.apache.kafka.common.security." + module + " required username=\"ours\" password=\"" + password + "\";");
        c.put("auto.offset.reset", "earliest");
        c.put("enable.auto.commit", "false");
        c.put("request.timeout.ms", "20000");
        c.put("default.api.timeout.ms", "20000");
        c.put("group.id", "ours.java");
        return c;
    }

    static void refused(Throwable e, boolean withText) {
        while (e.getCause() != null) {
            e = e.getCause();
        }
        System.out.println("refused " + e.getClass().getSimpleName() + (withText ? " " + e.getMessage() : ""));
    }

    static KafkaConsumer<String, String> consumer(Map<String, Object> c) {
        return new KafkaConsumer<>(c, new StringDeserializer(), new StringDeserializer());
    }

    public static void main(String[] args) throws Exception {
        Map<String, Object> good = config(args, "PLAIN", "sruo");
        try (KafkaProducer<String, String> p = new KafkaProducer<>(good, new StringSerializer(), new StringSerializer());
                KafkaConsumer<String, String> c = consumer(good)) {
            p.send(new ProducerRecord<>("ours", "from java")).get();
            c.subscribe(List.of("ours"));
            for (int seen = 0; seen < 2; ) {
                for (ConsumerRecord<String, String> r : c.poll(Duration.ofSeconds(1))) {
                    System.out.println("read " + r.value());
                    seen++;
                }
            }
            c.commitSync();
        }
        try (Admin admin = Admin.create(good)) {
            System.out.println("topics " + admin.listTopics().names().get());
        }
        try (KafkaProducer<String, String> p = new KafkaProducer<>(good, new StringSerializer(), new StringSerializer())) {
            p.send(new ProducerRecord<>("theirs", "from java")).get();
        } catch (Exception e) {
            refused(e, false);
        }
        good.put("group.id", "theirs.java");
        try (KafkaConsumer<String, String> c = consumer(good)) {
            c.subscribe(List.of("ours"));
            c.poll(Duration.ofSeconds(20));
        } catch (Exception e) {
            refused(e, false);
        }
        for (Map<String, Object> bad : List.of(config(args, "PLAIN", "guess"), config(args, "SCRAM-SHA-256", "sruo"))) {
            try (Admin admin = Admin.create(bad)) {
                admin.listTopics().names().get();
            } catch (Exception e) {
                refused(e, bad.get("sasl.mechanism").equals("PLAIN"));
            }
        }
    }
}
