//! Against librdkafka's mock cluster, which answers with the errors it is told to. Real brokers are met in the integration tests.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::sink::testing::{batch, ring, secret};

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).expect("starts");
    cluster.create_topic("verdicts", 1, 1).expect("a topic");
    cluster
}

fn config(options: &[(&str, &str)]) -> KafkaConfig {
    let options: BTreeMap<&str, &str> = options.iter().copied().collect();
    let json = serde_json::json!({"brokers": ["127.0.0.1:9092"], "topic": "verdicts", "options": options});
    serde_json::from_value(json).expect("is a config")
}

async fn sink(brokers: &str, options: &[(&str, &str)]) -> KafkaSink {
    let brokers = brokers.split(',').map(str::to_owned).collect();
    let plan = KafkaConfig { brokers, ..config(options) }.plan("sinks.lake").expect("is valid");
    let secrets = ring(plan.secrets()).await;
    plan.build(&"lake".parse().expect("a name"), secrets)
}

/// A sink with an open connection.
async fn opened(cluster: &Cluster, options: &[(&str, &str)]) -> KafkaSink {
    let mut sink = sink(&cluster.bootstrap_servers(), options).await;
    assert_eq!(sink.open(Position(0)).await, Ok(Position(0)));
    sink
}

fn push(cluster: &Cluster, api: RDKafkaApiKey, error: RDKafkaRespErr, times: usize) {
    cluster.request_errors(api, &vec![error; times]);
}

fn read(brokers: &str, count: usize) -> Vec<OwnedMessage> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "test");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut from_the_start = TopicPartitionList::new();
    from_the_start.add_partition_offset("verdicts", 0, Offset::Beginning).expect("a partition");
    // Assigned, because joining a group takes seconds.
    consumer.assign(&from_the_start).expect("is assigned");
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut messages = Vec::new();
    let mut quiet = 0;
    // Nothing for a second after the first one is the end.
    while messages.len() < count && Instant::now() < deadline && (messages.is_empty() || quiet < 10) {
        quiet += 1;
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            messages.push(message.expect("a message").detach());
            quiet = 0;
        }
    }
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_settled_in_order_and_arrive_with_key_and_headers() {
    let cluster = cluster();
    let mut sink = opened(&cluster, &[]).await;
    for first in [1, 3] {
        sink.send(&batch(&[(first, "{}"), (first + 1, "{}")])).await.expect("is queued");
    }
    for through in [2, 4] {
        assert_eq!(sink.settled().await, Ok(Settled::Through(Position(through))));
    }
    let brokers = cluster.bootstrap_servers();
    let messages = spawn_blocking(move || read(&brokers, 4)).await.expect("reads");
    assert_eq!(messages.len(), 4);
    let key = format!("file:{}", "01".repeat(32));
    assert_eq!(messages[0].key(), Some(key.as_bytes()));
    let headers = messages[0].headers().expect("has headers");
    let header = |name: &str| {
        let found = headers.iter().find(|header| header.key == name).and_then(|header| header.value);
        String::from_utf8_lossy(found.unwrap_or_default()).into_owned()
    };
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", "01".repeat(16).as_str()),
        ("ce_source", "/sources/portal"),
        ("ce_type", "verdict.malicious"),
        ("ce_subject", &key),
        ("ce_time", "2026-11-21T00:00:00Z"),
        ("ce_partitionkey", &key),
        ("content-type", "application/json"),
    ] {
        assert_eq!(header(name), value, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_by_itself_is_waited_for() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER as DUPLICATE, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS as REPLICAS,
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as LEADER,
    };
    let cluster = cluster();
    let mut sink = opened(&cluster, &[]).await;
    for (position, error) in [(1, REPLICAS), (2, LEADER), (3, DUPLICATE)] {
        push(&cluster, RDKafkaApiKey::Produce, error, 1);
        sink.send(&batch(&[(position, "{}")])).await.expect("is queued");
        assert_eq!(sink.settled().await, Ok(Settled::Through(Position(position))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_counts_only_for_a_batch_that_travelled_alone() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_INVALID_RECORD as RECORD, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE as SIZE,
        RD_KAFKA_RESP_ERR_POLICY_VIOLATION as POLICY,
    };
    for error in [SIZE, RECORD, POLICY] {
        let cluster = cluster();
        let mut sink = opened(&cluster, &[]).await;
        let events = batch(&[(1, "{}"), (2, "{}")]);
        push(&cluster, RDKafkaApiKey::Produce, error, 2);
        sink.send(&events).await.expect("is queued");
        assert_eq!(sink.settled().await, Ok(Settled::Rewind(Position(1))), "{error:?}");
        assert_eq!(sink.in_flight_max(), 1);

        sink.open(Position(0)).await.expect("opens");
        sink.send(&events).await.expect("is queued");
        let refused = sink.settled().await.expect("is refused");
        assert!(
            matches!(refused, Settled::Refused { from: Position(1), through: Position(2), suspect: None, .. }),
            "{error:?} {refused:?}"
        );
        // As `deliver` does it: one after the other, each alone.
        for event in &events {
            sink.send(std::slice::from_ref(event)).await.expect("is queued");
            assert_eq!(sink.settled().await, Ok(Settled::Through(event.position)));
        }
        assert_eq!(sink.in_flight_max(), IN_FLIGHT_MAX);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_over_the_librarys_own_limit_is_refused_and_its_neighbour_is_not_blamed() {
    let cluster = cluster();
    let mut sink = opened(&cluster, &[("message.max.bytes", "2000")]).await;
    let large = "x".repeat(4000);
    let events = batch(&[(1, "{}"), (2, &large)]);
    sink.send(&events).await.expect("is queued");
    let refused = sink.settled().await.expect("is refused");
    assert!(matches!(refused, Settled::Refused { from: Position(2), through: Position(2), .. }), "{refused:?}");
    sink.send(&events[..1]).await.expect("is queued");
    assert_eq!(sink.settled().await, Ok(Settled::Through(Position(1))));
}

/// Sends again from the beginning until all is settled, as `deliver` does: what was refused alone is left out.
async fn deliver(sink: &mut KafkaSink, events: &[Rendered]) {
    let (mut next, mut last, mut flying, mut open) = (0, 0, 0, true);
    while last < events.len() {
        if !open {
            sink.open(Position(0)).await.expect("opens");
            open = true;
        }
        while next < events.len() && flying < sink.in_flight_max() {
            sink.send(&events[next..=next]).await.expect("is queued");
            (next, flying) = (next + 1, flying + 1);
        }
        match sink.settled().await {
            Ok(Settled::Through(position)) => {
                last = events.iter().position(|event| event.position == position).expect("is one of them") + 1;
                flying -= 1;
            }
            Ok(Settled::Refused { from, through, .. }) => {
                assert_eq!(from, through, "it travelled alone");
                (next, last, flying) = (last + 1, last + 1, 0);
            }
            Ok(Settled::Alive | Settled::Silent { .. }) => {}
            Ok(Settled::Rewind(_)) | Err(_) => (next, flying, open) = (last, 0, false),
        }
    }
}

/// An event of its own about the subject that all of these have.
fn of_one_subject(position: u64, body: &str) -> Rendered {
    let mut rendered = crate::sink::testing::rendered(position, body);
    let mut event = (*rendered.event).clone();
    event.finding.subject = crate::sink::testing::rendered(0, "").event.finding.subject.clone();
    rendered.event = Arc::new(event);
    rendered
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_overtakes_an_event_that_failed() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_INVALID_RECORD as RECORD, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS as REPLICAS,
        RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER as SEQUENCE,
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED as DENIED,
    };
    for error in [RECORD, REPLICAS, SEQUENCE, DENIED] {
        let cluster = cluster();
        // One record a request, so that others are on the way or wait when the first one is refused.
        let mut sink = opened(&cluster, &[("batch.num.messages", "1"), ("linger.ms", "0")]).await;
        let bodies: Vec<String> = (1..=20).map(|at| at.to_string()).collect();
        let events: Vec<Rendered> = (1..).zip(&bodies).map(|(at, body)| of_one_subject(at, body)).collect();
        push(&cluster, RDKafkaApiKey::Produce, error, 1);
        deliver(&mut sink, &events).await;
        let brokers = cluster.bootstrap_servers();
        let messages = spawn_blocking(move || read(&brokers, 100)).await.expect("reads");
        let mut arrived: Vec<String> = Vec::new();
        for message in messages {
            let body = String::from_utf8(message.payload().expect("has a body").to_vec()).expect("is text");
            if !arrived.contains(&body) {
                arrived.push(body);
            }
        }
        assert_eq!(arrived, bodies, "{error:?}: each at least once, in order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_in_the_same_request_is_not_blamed_and_the_poison_is_found_alone() {
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    let cluster = cluster();
    // Two batches of one event each that the library puts into one request.
    let mut sink = opened(&cluster, &[("linger.ms", "100")]).await;
    push(&cluster, RDKafkaApiKey::Produce, error, 1);
    for at in 1..=2 {
        sink.send(&batch(&[(at, "{}")])).await.expect("is queued");
    }
    assert_eq!(sink.settled().await, Ok(Settled::Rewind(Position(1))));
    deliver(&mut sink, &batch(&[(1, "{}"), (2, "{}")])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_and_topics_pause_the_sink() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED as DENIED, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART as UNKNOWN,
    };
    let cluster = cluster();
    let mut sink = opened(&cluster, &[]).await;
    push(&cluster, RDKafkaApiKey::Produce, DENIED, 1);
    sink.send(&batch(&[(1, "{}")])).await.expect("is queued");
    let stop = sink.settled().await.expect_err("is denied");
    assert!(matches!(&stop, Stop::Misconfigured { reason } if reason.contains("\"verdicts\"")), "{stop}");

    cluster.topic_error("verdicts", UNKNOWN).expect("is set");
    let stop = sink.open(Position(0)).await.expect_err("there is no such topic");
    assert!(matches!(&stop, Stop::Misconfigured { reason } if reason.contains("check that it exists")), "{stop}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_out_leaves_open_what_happened() {
    let cluster = cluster();
    let mut sink = opened(&cluster, &[("message.timeout.ms", "1000")]).await;
    cluster.broker_down(1).expect("goes down");
    sink.send(&batch(&[(1, "{}")])).await.expect("is queued");
    let stop = sink.settled().await.expect_err("nobody answers");
    assert!(matches!(stop, Stop::Unavailable { .. }), "{stop:?}");
    cluster.broker_up(1).expect("comes up");
    // A busy machine may need longer than this limit to find the broker again: tried until it has, as `deliver` does.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        sink.open(Position(0)).await.expect("opens");
        sink.send(&batch(&[(1, "{}")])).await.expect("is queued");
        match sink.settled().await {
            Err(Stop::Unavailable { .. }) if Instant::now() < deadline => {}
            settled => break assert_eq!(settled, Ok(Settled::Through(Position(1)))),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_enough_replicas_all_is_given_up_together_and_sent_again_in_order() {
    let cluster = cluster();
    // One request after the other: the mock cluster looks at no sequence numbers, by which a broker refuses what overtakes.
    let mut sink = opened(&cluster, &[("message.timeout.ms", "1000"), ("linger.ms", "100")]).await;
    let replicas = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
    push(&cluster, RDKafkaApiKey::Produce, replicas, 1000);
    let bodies: Vec<String> = (1..=10).map(|at| at.to_string()).collect();
    let events: Vec<Rendered> = (1..).zip(&bodies).map(|(at, body)| of_one_subject(at, body)).collect();
    sink.send(&events).await.expect("is queued");
    let stop = sink.settled().await.expect_err("nobody confirms it");
    assert!(matches!(&stop, Stop::Unavailable { reason, .. } if reason.contains("min.insync.replicas")), "{stop}");
    cluster.clear_request_errors(RDKafkaApiKey::Produce);
    deliver(&mut sink, &events).await;
    let brokers = cluster.bootstrap_servers();
    let messages = spawn_blocking(move || read(&brokers, 100)).await.expect("reads");
    let mut arrived: Vec<&[u8]> = messages.iter().filter_map(Message::payload).collect();
    arrived.dedup();
    assert_eq!(arrived, bodies.iter().map(String::as_bytes).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_moves_and_a_broker_that_goes_change_no_order() {
    let cluster: Cluster = MockCluster::new(3).expect("starts");
    cluster.create_topic("verdicts", 1, 3).expect("a topic");
    let mut sink = opened(&cluster, &[("message.timeout.ms", "2000")]).await;
    let bodies: Vec<String> = (1..=40).map(|at| at.to_string()).collect();
    let events: Vec<Rendered> = (1..).zip(&bodies).map(|(at, body)| of_one_subject(at, body)).collect();
    for (leader, part) in [(1, 0..10), (2, 10..20), (3, 20..30), (1, 30..40)] {
        cluster.partition_leader("verdicts", 0, Some(leader)).expect("moves");
        if leader == 2 {
            cluster.broker_down(1).expect("goes");
        }
        if leader == 3 {
            cluster.broker_up(1).expect("comes back");
        }
        deliver(&mut sink, &events[part]).await;
    }
    let brokers = cluster.bootstrap_servers();
    let messages = spawn_blocking(move || read(&brokers, 100)).await.expect("reads");
    let mut arrived: Vec<&[u8]> = Vec::new();
    for body in messages.iter().filter_map(Message::payload) {
        if !arrived.contains(&body) {
            arrived.push(body);
        }
    }
    assert_eq!(arrived, bodies.iter().map(String::as_bytes).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fatal_error_costs_a_new_producer_and_nothing_else() {
    let cluster = cluster();
    let mut sink = opened(&cluster, &[]).await;
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    push(&cluster, RDKafkaApiKey::Produce, error, 1);
    sink.send(&batch(&[(1, "{}")])).await.expect("is queued");
    let stop = sink.settled().await.expect_err("the producer is lost");
    assert!(matches!(&stop, Stop::Unavailable { reason, .. } if reason.contains("made anew")), "{stop}");
    sink.open(Position(0)).await.expect("opens");
    sink.send(&batch(&[(1, "{}")])).await.expect("is queued");
    assert_eq!(sink.settled().await, Ok(Settled::Through(Position(1))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_holds_the_sender_back_and_loses_nothing() {
    let cluster = cluster();
    let mut sink = opened(&cluster, &[("queue.buffering.max.messages", "10")]).await;
    let events: Vec<Rendered> = (1..=100).map(|at| crate::sink::testing::rendered(at, "{}")).collect();
    sink.send(&events).await.expect("is queued");
    assert_eq!(sink.settled().await, Ok(Settled::Through(Position(100))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_dropped_loses_no_answer() {
    let cluster = cluster();
    let mut sink = opened(&cluster, &[("linger.ms", "50")]).await;
    sink.send(&batch(&[(1, "{}")])).await.expect("is queued");
    let answer = loop {
        if let Ok(answer) = tokio::time::timeout(Duration::from_millis(1), sink.settled()).await {
            break answer;
        }
    };
    assert_eq!(answer, Ok(Settled::Through(Position(1))));
}

#[test]
fn errors_fall_into_classes_by_whose_fault_they_are() {
    use RDKafkaErrorCode as Code;
    for (code, expected) in [
        (Code::MessageSizeTooLarge, Class::Poison),
        (Code::InvalidRecord, Class::Poison),
        (Code::PolicyViolation, Class::Poison),
        (Code::TopicAuthorizationFailed, Class::Setup),
        (Code::UnknownTopicOrPartition, Class::Setup),
        (Code::SaslAuthenticationFailed, Class::Unauthorized),
        (Code::Authentication, Class::Unauthorized),
        (Code::SSL, Class::Tls),
        (Code::MessageTimedOut, Class::Unknown),
        (Code::NotEnoughReplicas, Class::Unknown),
        (Code::BrokerTransportFailure, Class::Unknown),
        (Code::PurgeQueue, Class::Unknown),
        (Code::OutOfOrderSequenceNumber, Class::Fatal),
        (Code::Fatal, Class::Fatal),
    ] {
        assert_eq!(class(code), expected, "{code:?}");
    }
    let transport = Some(Code::BrokerTransportFailure);
    for (words, expected) in [
        ("Receive failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42", Class::Tls),
        ("Disconnected while requesting ApiVersion", Class::Unknown),
    ] {
        assert_eq!(errors::class_of_connection(transport, words), expected, "{words}");
    }
}

#[test]
fn options_that_could_lose_events_or_trust_anyone_are_refused_with_words() {
    for (name, value) in [
        ("acks", "1"),
        ("request.required.acks", "all"),
        ("enable.idempotence", "false"),
        ("retries", "3"),
        ("message.send.max.retries", "3"),
        ("max.in.flight", "1"),
        ("max.in.flight.requests.per.connection", "1"),
        ("transactional.id", "x"),
        ("plugin.library.paths", "/tmp/x.so"),
        ("ssl.engine.location", "/tmp/x.so"),
        ("enable.ssl.certificate.verification", "false"),
        ("enable.ssl.certificate.verification", "False"),
        ("ssl.endpoint.identification.algorithm", "none"),
        ("delivery.report.only.error", "true"),
        ("message.timeout.ms", "0"),
        ("delivery.timeout.ms", "soon"),
        ("enable.gapless.guarantee", "false"),
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.mechanism", "GSSAPI"),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("test.mock.num.brokers", "3"),
        ("bootstrap.servers", "elsewhere:9092"),
        ("sasl.password", "hunter2-hunter2"),
        ("ssl.key.password", "hunter2-hunter2"),
        ("sasl.password", "vault:kafka#password"),
        ("compresion.type", "zstd"),
        ("compression.type", "zip"),
    ] {
        let problems = config(&[(name, value)]).plan("sinks.lake").expect_err(name);
        let words = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        assert!(words.starts_with("sinks.lake.options") && words.contains(name), "{words}");
        assert!(!words.contains("hunter2"), "{words}");
    }
    let good = [
        ("compression.type", "zstd"),
        ("linger.ms", "20"),
        ("enable.ssl.certificate.verification", "true"),
        ("security.protocol", "sasl_ssl"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.password", "env:KAFKA_PASSWORD"),
    ];
    let plan = config(&good).plan("sinks.lake").expect("is valid");
    assert_eq!(plan.secrets(), [SecretRef("env:KAFKA_PASSWORD".to_owned())]);
}

#[test]
fn the_tls_table_becomes_options_and_never_less_than_verification() {
    let tls = |json: serde_json::Value| {
        let config: ClientTlsConfig = serde_json::from_value(json).expect("is a config");
        KafkaConfig { tls: Some(config), ..config_with_sasl() }.plan("sinks.lake")
    };
    let plan = tls(serde_json::json!({"ca": "ca.pem", "certificate": "c.pem", "key": "k.pem"})).expect("is valid");
    let config = plan.client_config(|_| Some("x".to_owned())).expect("has secrets");
    assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
    assert_eq!(config.get("ssl.ca.location"), Some("ca.pem"));
    assert_eq!(config.get("ssl.key.location"), Some("k.pem"));
    for bad in [serde_json::json!({"dangerous_skip_verify": true}), serde_json::json!({"server_name": "kafka"})] {
        tls(bad).expect_err("is refused");
    }
}

#[test]
fn a_mechanism_or_a_token_switches_sasl_on() {
    let protocol = |config: KafkaConfig| {
        let plan = config.plan("sinks.lake").expect("is valid");
        let config = plan.client_config(|_| Some("x".to_owned())).expect("has secrets");
        ["security.protocol", "sasl.mechanism"].map(|name| config.get(name).unwrap_or_default().to_owned())
    };
    assert_eq!(protocol(config_with_sasl()), ["sasl_plaintext", "PLAIN"]);
    let token = Some(SecretRef("file:/run/token".to_owned()));
    let with_token = KafkaConfig { token, ..config(&[]) };
    assert_eq!(protocol(with_token.clone()), ["sasl_plaintext", "OAUTHBEARER"]);
    assert_eq!(protocol(KafkaConfig { tls: Some(ClientTlsConfig::default()), ..with_token.clone() })[0], "sasl_ssl");
    assert_eq!(protocol(config(&[])), ["", ""]);
    let both = KafkaConfig { token: with_token.token, ..config_with_sasl() };
    both.plan("sinks.lake").expect_err("a token for PLAIN");
}

fn config_with_sasl() -> KafkaConfig {
    config(&[("sasl.username", "relay"), ("sasl.mechanism", "PLAIN"), ("sasl.password", "env:KAFKA_PASSWORD")])
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_read_at_each_opening_and_never_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let password = secret(folder.path(), "password", "correct-horse-battery");
    let mut missing = sink("127.0.0.1:1", &[("sasl.password", "file:/does/not/exist")]).await;
    let stop = missing.open(Position(0)).await.expect_err("there is no password");
    assert!(
        matches!(&stop, Stop::Unauthorized { reason } if reason.contains("file:/does/not/exist of option sasl.password")),
        "{stop}"
    );

    let sink = sink("127.0.0.1:1", &[("sasl.password", &password.0)]).await;
    let live = sink.start().expect("starts");
    assert_eq!(live.producer.context().without_secrets("sent correct-horse-battery!"), "sent [redacted]!");
}
