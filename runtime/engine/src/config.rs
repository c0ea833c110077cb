//! The configuration: `cofferdam.toml`, or the same made by a program.
//!
//! Everything is checked before anything runs, and what is wrong is told with file, line, key,
//! cause and remedy. Keys that nobody reads are refused by name. Secrets are read when the file is
//! loaded, and appear in no message and no `Debug` output.

mod admission;
mod connection;
mod document;
mod error;
mod plugins;
mod read;
mod resilience;
mod tasks;
#[cfg(test)]
mod tests;
mod workflows;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_host::{PublicKey, Trust};
use toml::de::DeTable;

pub use admission::{Admission, Tenant};
pub use connection::Connection;
pub use error::{Error, Place};
pub use plugins::{PLUGINS_VARIABLE, PluginRef};
pub use resilience::Bulkhead;
pub use workflows::ConfiguredWorkflow;

use crate::events::EventOptions;
use crate::{Durability, Engine};
use document::{Document, Section, list};

/// A checked configuration. [`Config::default`] has no connections and no store path.
#[derive(Debug, Clone, Default)]
pub struct Config {
    store_path: Option<PathBuf>,
    engine: Option<Engine>,
    store_options: cofferdam_store::Options,
    retention: Option<Duration>,
    records_max: Option<u64>,
    durability: Durability,
    plugins_dir: Option<Arc<PathBuf>>,
    workflows_dir: Option<PathBuf>,
    workflows: Vec<ConfiguredWorkflow>,
    events: EventOptions,
    catalogs: BTreeMap<String, PathBuf>,
    cache_dir: Option<PathBuf>,
    watch: bool,
    trust: Trust,
    connections: Vec<Connection>,
    admission: Admission,
}

impl Config {
    /// Reads a file. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`Error`] names file, line, key, cause and remedy.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            origin: origin.clone(),
            source,
        })?;
        Self::parse(&text, &origin, path.parent().unwrap_or(Path::new("")))
    }

    /// Reads a text; `origin` is what messages begin with, `base_dir` what relative paths are
    /// relative to.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, origin: &str, base_dir: &Path) -> Result<Self, Error> {
        Self::parse_in(text, origin, base_dir, &|name| std::env::var(name).ok())
    }

    fn parse_in(
        text: &str,
        origin: &str,
        base_dir: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let document = Document {
            origin,
            text,
            base_dir,
            env,
        };
        let table = DeTable::parse(text).map_err(|error| Error::Syntax {
            place: document.place("", error.span().map_or(0, |span| span.start)),
            reason: error
                .message()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        })?;
        let config = Self::read(&Section::root(&document, table.get_ref()))?;
        config.validate()?;
        Ok(config)
    }

    fn read(root: &Section<'_>) -> Result<Self, Error> {
        root.only(&[
            "store",
            "plugins",
            "limits",
            "connections",
            "workflows",
            "events",
            "tenants",
        ])?;
        let mut config = Self::default();
        if let Some(store) = root.section("store")? {
            store.only(&[
                "path",
                "durability",
                "engine",
                "reserve",
                "retention",
                "records-max",
            ])?;
            read::store(&store, &mut config)?;
            config.store_path = folder(&store, "path")?;
            if let Some(item) = store.get("durability") {
                config.durability = item.choice(&[
                    ("output-commit", Durability::OutputCommit),
                    ("every-task", Durability::EveryTask),
                ])?;
            }
        }
        if let Some(plugins) = root.section("plugins")? {
            plugins.only(&["dir", "cache", "trusted-keys", "allow-unsigned", "watch"])?;
            config.trust = read::trust(&plugins)?;
            config.watch = plugins.get("watch").map_or(Ok(false), |item| item.bool())?;
            config.cache_dir = folder(&plugins, "cache")?;
            config.plugins_dir = folder(&plugins, "dir")?.map(Arc::new);
        }
        if let Some(workflows) = root.section("workflows")? {
            config.workflows = workflows::workflows(&workflows)?;
            config.workflows_dir = folder(&workflows, "dir")?;
            if let Some(catalogs) = workflows.section("catalogs")? {
                for item in catalogs.items() {
                    let path = item.document.path(item.text()?);
                    config.catalogs.insert(item.name, path);
                }
            }
        }
        if let Some(events) = root.section("events")? {
            config.events = workflows::events(&events)?;
        }
        config.admission = admission::admission(root)?;
        let limits = read::limits(root, &connection::Limited::default())?;
        let defaults = read::Defaults {
            limits,
            plugins_dir: config.plugins_dir.clone(),
        };
        if let Some(connections) = root.section("connections")? {
            for item in connections.items() {
                config.connections.push(read::connection(&item, &defaults)?);
            }
        }
        Ok(config)
    }

    /// A configuration with no connections; the same as [`Config::default`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps runs in this directory; it is made if it is absent.
    pub fn with_store(mut self, path: impl Into<PathBuf>) -> Self {
        self.store_path = Some(path.into());
        self
    }

    /// Lets this engine keep the store. Without it, the one that keeps the store that is there, and
    /// sled for one that is made.
    pub fn with_engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Leaves so many bytes of the store's disk free: with less, no run is begun, and what is under
    /// way waits; default 64 MiB.
    pub fn with_reserve_bytes(mut self, bytes: u64) -> Self {
        self.store_options.reserve_bytes = bytes;
        self
    }

    /// Removes the oldest records of a run that has more than these, at least 1, once a checkpoint stands
    /// for them; default: all are kept. Such a run cannot be redriven or forked.
    pub fn with_records_max(mut self, records: u64) -> Self {
        self.records_max = Some(records.max(1));
        self
    }

    /// Removes a run so long after it has ended, unless it left a dead letter or a review; default:
    /// runs are kept.
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// When a result has to be on disk.
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Looks plugins up in this folder first.
    pub fn with_plugins_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        let dir = Arc::new(dir.into());
        for connection in &mut self.connections {
            connection.plugins_dir = Some(Arc::clone(&dir));
        }
        self.plugins_dir = Some(dir);
        self
    }

    /// Swaps a plugin in when its file is written, by the same path as any other swap.
    pub fn with_plugins_watched(mut self) -> Self {
        self.watch = true;
        self
    }

    /// Whether plugins are swapped in when their files are written.
    pub fn watches_plugins(&self) -> bool {
        self.watch
    }

    /// Lets plugins in that one of these keys has signed; without any, and without
    /// [`Config::with_allow_unsigned`], no plugin is let in.
    pub fn with_trusted_keys(mut self, keys: impl IntoIterator<Item = PublicKey>) -> Self {
        self.trust.keys = keys.into_iter().collect();
        self
    }

    /// Lets plugins in that no trusted key vouches for, and tells so at each start; default false.
    /// A signature that does not fit its plugin is refused all the same.
    pub fn with_allow_unsigned(mut self, allow: bool) -> Self {
        self.trust.allow_unsigned = allow;
        self
    }

    /// Lets so many runs be under way; see [`Admission`] for the defaults.
    pub fn with_admission(mut self, admission: Admission) -> Self {
        self.admission = admission;
        self
    }

    /// How many runs may be under way, and which go first.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Takes functions of a catalog from this folder.
    pub fn with_catalog(mut self, name: impl Into<String>, dir: impl Into<PathBuf>) -> Self {
        self.catalogs.insert(name.into(), dir.into());
        self
    }

    /// Catalogs by name, each a local folder.
    pub fn catalogs(&self) -> &BTreeMap<String, PathBuf> {
        &self.catalogs
    }

    /// Looks workflows that others run up in this folder.
    pub fn with_workflows_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.workflows_dir = Some(dir.into());
        self
    }

    /// Names a workflow, in place of one of the same name: its schedule is looked after by
    /// [`crate::Runtime::run_schedules`], with this as the input of runs that begin at an instant.
    pub fn with_workflow(
        mut self,
        name: impl Into<String>,
        file: impl Into<PathBuf>,
        input: serde_json::Value,
    ) -> Self {
        let (name, file) = (name.into(), file.into());
        self.workflows.retain(|other| other.name != name);
        self.workflows
            .push(ConfiguredWorkflow { name, file, input });
        self
    }

    /// Keeps events as long as this says, and publishes what it says.
    pub fn with_events(mut self, events: EventOptions) -> Self {
        self.events = events;
        self
    }

    /// Adds a connection, in place of one of the same name. Checked by [`Config::validate`].
    pub fn with_connection(mut self, mut connection: Connection) -> Self {
        connection.plugins_dir.clone_from(&self.plugins_dir);
        self.connections
            .retain(|other| other.name != connection.name);
        self.connections.push(connection);
        self
    }

    /// What is written and can have no effect, each with its place and a remedy. Only what is known
    /// without the plugins; [`Connection::advice`] knows more with a manifest.
    pub fn warnings(&self) -> Vec<String> {
        let connections = self.connections.iter();
        connections.filter_map(|one| one.advice(None)).collect()
    }

    /// Refuses connections that could never work, and backups that are not there. What was loaded
    /// or parsed has passed this.
    ///
    /// # Errors
    /// [`Error::Value`] and [`Error::Reference`].
    pub fn validate(&self) -> Result<(), Error> {
        let names: Vec<&str> = self.connections.iter().map(Connection::name).collect();
        for connection in &self.connections {
            connection.validate()?;
            for backup in connection.backups() {
                let problem = if backup == connection.name() {
                    format!("`{backup}` is its own backup")
                } else if names.contains(&backup.as_str()) {
                    continue;
                } else {
                    format!("there is no connection `{backup}`")
                };
                let place = connection.place();
                let others: Vec<&str> = names
                    .iter()
                    .copied()
                    .filter(|name| *name != connection.name())
                    .collect();
                return Err(Error::Reference {
                    place: place.with_key(format!("{}.backups", place.key)),
                    problem,
                    remedy: format!("name another connection; there are {}", list(&others)),
                });
            }
        }
        Ok(())
    }

    /// Where runs are kept, if it says so.
    pub fn store_path(&self) -> Option<&Path> {
        self.store_path.as_deref()
    }

    /// What keeps the store, if it says so.
    pub fn engine(&self) -> Option<Engine> {
        self.engine
    }

    /// How long runs are kept that have ended, if not for ever.
    pub fn retention(&self) -> Option<Duration> {
        self.retention
    }

    /// How many records of a run are kept, if not all.
    pub fn records_max(&self) -> Option<u64> {
        self.records_max
    }

    /// Free bytes of the disk below which the store takes no more commits.
    pub fn reserve_bytes(&self) -> u64 {
        self.store_options.reserve_bytes
    }

    pub(crate) fn store_options(&self) -> cofferdam_store::Options {
        self.store_options.clone()
    }

    /// When a result has to be on disk.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Where workflows that others run are looked up, if it says so.
    pub fn workflows_dir(&self) -> Option<&Path> {
        self.workflows_dir.as_deref()
    }

    /// The workflows that are named, in the order of the file.
    pub fn workflows(&self) -> &[ConfiguredWorkflow] {
        &self.workflows
    }

    /// How events are kept, and which runs publish about themselves.
    pub fn events(&self) -> &EventOptions {
        &self.events
    }

    /// Where compiled plugins are kept: the configured folder, else `cofferdam` in the user's cache
    /// folder (`XDG_CACHE_HOME`, `~/.cache`) if it can be made, else nowhere.
    pub fn code_cache_dir(&self) -> Option<PathBuf> {
        if let Some(dir) = &self.cache_dir {
            return Some(dir.clone());
        }
        let variable = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let cache =
            variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
        let dir = cache.join("cofferdam");
        std::fs::create_dir_all(&dir).ok().map(|()| dir)
    }

    /// The connections, in the order of the file.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter()
    }

    /// The connection of this name.
    pub fn connection(&self, name: &str) -> Option<&Connection> {
        self.connections
            .iter()
            .find(|connection| connection.name == name)
    }

    /// How many earlier answers are kept, by connection.
    pub(crate) fn answer_limits(&self) -> std::collections::HashMap<String, crate::AnswerLimits> {
        let all = self.connections.iter();
        all.map(|c| (c.name.clone(), c.answer_limits())).collect()
    }

    /// Who may vouch for the plugin of a connection.
    pub fn trust(&self, connection: &Connection) -> Trust {
        Trust {
            keys: self.trust.keys.clone(),
            allow_unsigned: connection
                .allow_unsigned
                .unwrap_or(self.trust.allow_unsigned),
        }
    }

    /// Who may vouch for plugins, where a connection says nothing of its own.
    pub fn trust_default(&self) -> &Trust {
        &self.trust
    }

    /// The folders in which plugins are looked up, in order; some may not exist.
    pub fn plugin_folders(&self) -> Vec<PathBuf> {
        plugins::folders(self.plugins_dir.as_ref().map(|dir| dir.as_path()))
    }

    /// Every plugin in those folders, by name. Looks at the file system and loads nothing.
    pub fn plugins(&self) -> BTreeMap<String, PathBuf> {
        plugins::found(&self.plugin_folders())
    }

    /// The component, or the folder that holds it, of a plugin given as a name or as a path.
    ///
    /// # Errors
    /// [`Error::NoPlugin`] says where it was looked for and what is there.
    pub fn find_plugin(&self, plugin: &str) -> Result<PathBuf, Error> {
        let place = Place {
            origin: plugin.to_owned(),
            line: 0,
            column: 0,
            key: String::new(),
        };
        let reference = PluginRef::parse(plugin, Path::new(""));
        plugins::resolve(
            &reference,
            self.plugins_dir.as_ref().map(|dir| dir.as_path()),
            &place,
        )
    }
}

fn folder(section: &Section<'_>, name: &str) -> Result<Option<PathBuf>, Error> {
    let path = |item: document::Item<'_>| Ok(item.document.path(item.text()?));
    section.get(name).map(path).transpose()
}
