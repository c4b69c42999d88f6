//! A topic on a real broker, made for one measurement and read back after it.
//!
//! Not here: the broker; the rows are left out where none is named.

use std::time::Duration;

use anyhow::Context;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::arrivals::Arrivals;

/// A topic of our own.
pub(crate) struct Topic {
    brokers: String,
    name: String,
}

impl Topic {
    /// Makes one, under a name that is new.
    pub(crate) fn create(brokers: &str) -> anyhow::Result<Self> {
        let name = format!("verdict-relay-load-{}", fastrand::u64(..));
        let client: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
        let topic = NewTopic::new(&name, PARTITIONS, TopicReplication::Fixed(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let options = AdminOptions::new().operation_timeout(Some(WAIT_MAX));
        let made = runtime.block_on(client.create_topics([&topic], &options))?;
        made.into_iter().next().context("no answer about the topic")?.map_err(|(_, code)| code)?;
        Ok(Self { brokers: brokers.to_owned(), name })
    }

    /// The settings of a sink that writes to it.
    pub(crate) fn sink_config(&self) -> String {
        let brokers: Vec<_> = self.brokers.split(',').collect();
        format!("type = \"kafka\"\nbrokers = {brokers:?}\ntopic = {:?}\nformat = \"ocsf\"", self.name)
    }

    /// Everything that it holds.
    pub(crate) fn read(self) -> anyhow::Result<Arrivals> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", &self.name)
            .set("isolation.level", "read_committed")
            .create()?;
        let mut wanted = TopicPartitionList::new();
        let mut left = 0;
        for partition in 0..PARTITIONS {
            wanted.add_partition_offset(&self.name, partition, Offset::Beginning)?;
            let (low, high) = consumer.fetch_watermarks(&self.name, partition, WAIT_MAX)?;
            left += high - low;
        }
        consumer.assign(&wanted)?;
        let mut arrivals = Arrivals::default();
        while left > 0 {
            let message = consumer.poll(WAIT_MAX).context("the broker holds more than it gives")??;
            arrivals.look(message.payload().unwrap_or_default());
            left -= 1;
        }
        Ok(arrivals)
    }
}

const PARTITIONS: i32 = 3;
const WAIT_MAX: Duration = Duration::from_secs(10);
