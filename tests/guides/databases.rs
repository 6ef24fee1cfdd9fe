//! The databases of the guide on databases and caches. Each server runs in a temporary folder, on a free port.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use sqlx::any::install_default_drivers;
use sqlx::{AnyConnection, Connection as _};
use tempfile::TempDir;
use tokio::process::Command;

use super::component::Component;
use support::{free_port, is_missing, skipped};

/// A database that runs on this machine until it is stopped or dropped.
pub struct Database {
    /// The value of `db.system.name`.
    pub system: &'static str,
    pub url: String,
    process: Option<Component>,
    _folder: TempDir,
}

impl Database {
    pub fn sqlite() -> Database {
        install_default_drivers();
        let folder = TempDir::new().expect("a folder");
        let url = format!("sqlite://{}/shop.db?mode=rwc", folder.path().display());
        Database { system: "sqlite", url, process: None, _folder: folder }
    }

    pub async fn postgresql() -> Option<Database> {
        let Some(programs) = postgresql_programs() else {
            skipped("PostgreSQL", "install it (Debian: postgresql)");
            return None;
        };
        install_default_drivers();
        let folder = TempDir::new().expect("a folder");
        let (data, port) = (folder.path().join("data"), free_port());
        let user = user_for(folder.path());
        let run = |program: &str| {
            let mut command = Command::new(programs.join(program));
            command.current_dir(folder.path()).env("LC_ALL", "C").arg("-D").arg(&data);
            if let Some((user, group)) = user {
                command.uid(user).gid(group);
            }
            command
        };
        let mut init = run("initdb");
        init.args(["--no-sync", "--auth", "trust", "--username", "shop", "--encoding", "UTF8"]);
        let made = init.output().await.expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut server = run("postgres");
        server.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", "", "-F"]);
        // In its folder. Shared memory of the system would stay when the server is killed.
        server.args(["-c", "dynamic_shared_memory_type=mmap"]);
        let process = Component::start(server, "ready to accept connections").await;
        let url = |name| format!("postgres://shop:secret-48151@127.0.0.1:{port}/{name}");
        let mut connection = AnyConnection::connect(&url("postgres")).await.expect("a connection");
        sqlx::query("CREATE DATABASE shop").execute(&mut connection).await.expect("a database");
        let (url, process) = (url("shop"), Some(process));
        Some(Database { system: "postgresql", url, process, _folder: folder })
    }

    pub async fn connect(&self) -> AnyConnection {
        AnyConnection::connect(&self.url).await.expect("a connection")
    }

    /// A connection that keeps every other one from changing a product.
    pub async fn lock(&self) -> AnyConnection {
        let mut connection = self.connect().await;
        let statements: &[&str] = match self.system {
            "sqlite" => &["BEGIN IMMEDIATE"],
            _ => &["BEGIN", "LOCK TABLE products IN EXCLUSIVE MODE"],
        };
        for statement in statements {
            sqlx::query(statement).execute(&mut connection).await.expect("the lock");
        }
        connection
    }

    /// Stops the server as Debian does.
    pub async fn stop(self) {
        if let Some(process) = self.process {
            process.stop("-INT").await;
        }
    }
}

/// The folder of PostgreSQL's programs. Debian keeps them off the path.
fn postgresql_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let debian = versions.flatten().map(|version| version.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = debian.chain(std::env::split_paths(&path));
    folders.into_iter().find(|folder| folder.join("initdb").is_file())
}

/// PostgreSQL refuses to run as root. If this process is root, this gives the folder to the user `postgres` and
/// returns the ids of the user and of its group.
fn user_for(folder: &Path) -> Option<(u32, u32)> {
    if fs::metadata(folder).expect("a folder").uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("the users");
    let user = users.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<&str> = user.expect("a user postgres").split(':').collect();
    let [user, group] = [fields[2], fields[3]].map(|id| id.parse().expect("a number"));
    chown(folder, Some(user), Some(group)).expect("it is ours");
    Some((user, group))
}

/// A Redis server that runs until it is dropped.
pub struct Redis {
    pub url: String,
    process: Component,
    _folder: TempDir,
}

impl Redis {
    pub async fn start() -> Option<Redis> {
        if is_missing("redis-server", "install the package `redis-server`") {
            return None;
        }
        let (folder, port) = (TempDir::new().expect("a folder"), free_port());
        let mut server = Command::new("redis-server");
        server.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
        server.arg("--dir").arg(folder.path());
        let process = Component::start(server, "eady to accept connections").await;
        let url = format!("redis://127.0.0.1:{port}");
        Some(Redis { url, process, _folder: folder })
    }

    /// Sends a command, written as for `redis-cli`.
    pub async fn send(&self, command: &str) {
        let client = redis::Client::open(&*self.url).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().expect("a command"));
        words.for_each(|word| _ = command.arg(word));
        command.exec_async(&mut connection).await.expect("it works");
    }

    pub async fn kill(self) {
        self.process.kill().await;
    }
}
