//! Apache Kafka: a broker that is its own controller, with its data in a folder.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::component::{installed, output_of};
use super::example::free_address;
use support::is_missing;

/// The last line of its start.
pub const READY: &str = "Kafka Server started";

pub struct Kafka {
    pub address: SocketAddr,
    libraries: PathBuf,
    settings: PathBuf,
}

impl Kafka {
    /// Prepares its data in `folder`. A topic that is made by its first message has this number of partitions. Returns `None` where
    /// Kafka or Java isn't installed.
    pub fn new(folder: &Path, partitions: u8) -> Option<Kafka> {
        let libraries = installed("kafka")?.join("lib");
        if is_missing("java", "install Java 17 or newer") {
            return None;
        }
        let [address, controller] = [free_address(), free_address()];
        let settings = folder.join("server.properties");
        let data = folder.join("data");
        let text = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@{controller}\n\
             controller.listener.names=CONTROLLER\n\
             listeners=PLAINTEXT://{address},CONTROLLER://{controller}\n\
             log.dirs={}\n\
             num.partitions={partitions}\n\
             offsets.topic.num.partitions=1\n\
             offsets.topic.replication.factor=1\n\
             group.initial.rebalance.delay.ms=0\n",
            data.display()
        );
        fs::write(&settings, text).expect("written");
        let kafka = Kafka { address, libraries, settings };
        let id = "AAAAAAAAAAAAAAAAAAAAAQ";
        let mut format = kafka.java("kafka.tools.StorageTool");
        format.args(["format", "--cluster-id", id, "--config"]).arg(&kafka.settings);
        output_of(format.as_std_mut());
        Some(kafka)
    }

    /// The command that starts it, for the first time or again.
    pub fn command(&self) -> Command {
        let mut command = self.java("kafka.Kafka");
        command.arg(&self.settings);
        command
    }

    /// One of Kafka's programs, which ends by itself.
    pub fn tool(&self, class: &str, arguments: &str) -> Command {
        let mut command = self.java(class);
        command.args(["--bootstrap-server", &self.address.to_string()]);
        command.args(arguments.split(' '));
        command
    }

    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command
            // It starts sooner so. Nothing here runs for long.
            .args(["-Xmx256m", "-XX:TieredStopAtLevel=1"])
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=error")
            .arg("-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info")
            .arg("-cp")
            .arg(self.libraries.join("*"))
            .arg(class);
        command
    }
}
