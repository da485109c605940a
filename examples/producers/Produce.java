// Sends a feature row, a prediction and its label to Kedge as a Java service
// would: over Kafka, with nothing of Kedge's.
//
//   java -cp 'kafka-clients.jar:slf4j-api.jar' Produce.java 127.0.0.1:9092
import java.time.Instant;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

public class Produce {
    public static void main(String[] args) throws Exception {
        Properties config = new Properties();
        config.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        config.put(ProducerConfig.ACKS_CONFIG, "all");
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            String now = Instant.now().toString();
            send(producer, "features", "{\"user_id\":8}",
                "{\"view\":\"user\",\"key\":{\"user_id\":8},\"event_time\":\"%s\",\"values\":{\"spend\":7.25,\"country\":\"FR\"}}".formatted(now));
            send(producer, "predictions", "java-1",
                "{\"model\":\"churn\",\"version\":\"3\",\"id\":\"java-1\",\"event_time\":\"%s\",\"inputs\":{\"spend\":7.25},\"output\":{\"score\":0.62}}".formatted(now));
            send(producer, "labels", "java-1",
                "{\"model\":\"churn\",\"prediction_id\":\"java-1\",\"event_time\":\"%s\",\"label\":1}".formatted(now));
        }
    }

    // Waits for the broker's answer: what it has acknowledged Kedge stores once.
    static void send(KafkaProducer<String, String> producer, String kind, String key, String event) throws Exception {
        producer.send(new ProducerRecord<>("kedge.default." + kind, key, event)).get();
    }
}
