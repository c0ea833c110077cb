//! `cofferdam backup | restore | migrate-store`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use cofferdam::control::{self, Request};
use cofferdam::{BackupSummary, Engine};

use crate::context::{Context, block_on};
use crate::exit::{storage, usage};
use crate::output;

pub const BACKUP_EXAMPLES: &str = "\
Everything in the store, and the copies of plugins beside it, as of one point in time; secrets and
configuration are not in it. A process that has the store open writes the file itself: runs go on, and
what they commit waits until the store has been read. The file is read back before the command ends.

Examples:
  cofferdam backup --to /backups/cofferdam-monday.backup
  cofferdam backup --to monday.backup --data /var/lib/cofferdam --output json";

pub const RESTORE_EXAMPLES: &str = "\
The folder must be empty or absent. It is a store only when every record has been compared with the
file; whatever goes wrong before leaves none.

Examples:
  cofferdam restore /backups/cofferdam-monday.backup --data /var/lib/cofferdam-restored
  cofferdam restore monday.backup --data restored --engine fjall";

pub const MIGRATE_EXAMPLES: &str = "\
No process may have the store open, and the disk needs room for both. The store stays as it is until the
new one has been compared with it record by record.

Examples:
  cofferdam migrate-store --to fjall --data /var/lib/cofferdam";

/// What `backup` takes.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The file to write; it must not be there
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// What `restore` takes.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// What is to keep the store [default: the configuration's [store] engine, else sled]
    #[arg(long, value_name = "ENGINE", value_parser = engine)]
    engine: Option<Engine>,
}

/// What `migrate-store` takes.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// What is to keep the store: sled or fjall
    #[arg(long, value_name = "ENGINE", value_parser = engine)]
    to: Engine,
}

fn engine(name: &str) -> Result<Engine, String> {
    let known = Engine::ALL.map(Engine::as_str).join(" or ");
    Engine::from_name(name).ok_or_else(|| format!("write {known}"))
}

pub fn backup(context: &Context, args: &BackupArgs) -> Result<ExitCode> {
    let to = std::path::absolute(&args.to)
        .with_context(|| format!("the file {} has no place", args.to.display()))?;
    if !to.parent().is_some_and(std::path::Path::is_dir) {
        return Err(usage(format!(
            "cannot write the backup `{}`: its folder is not there\nhelp: check the path, or make the folder",
            args.to.display()
        )));
    }
    if to.exists() {
        let what = if to.is_dir() { "folder" } else { "file" };
        return Err(storage(format!(
            "CD0415: cannot write the backup `{}`: there is a {what} already\nhelp: name another file, or move that one away",
            args.to.display()
        )));
    }
    let path = context.store_path()?;
    let request = Request::Backup { to: to.clone() };
    let answer = block_on(async { Ok(control::ask(&path, &request).await?) })?;
    let written = match answer {
        Some(answer) => serde_json::from_value(answer)?,
        None => context.archive()?.backup(&to)?,
    };
    tell(context, "written and read back", &written)?;
    eprintln!("{}", to.display());
    Ok(ExitCode::SUCCESS)
}

pub fn restore(context: &Context, args: &RestoreArgs) -> Result<ExitCode> {
    if !context.names_data() {
        return Err(usage(
            "restore wants the folder to restore to\nhelp: name one that is empty or absent with --data DIR",
        ));
    }
    if !args.file.is_file() {
        let what = if args.file.exists() {
            "it is no file"
        } else {
            "no such file"
        };
        return Err(usage(format!(
            "cannot read the backup `{}`: {what}\nhelp: check the path",
            args.file.display()
        )));
    }
    let mut config = context.place()?;
    if let Some(engine) = args.engine {
        config = config.with_engine(engine);
    }
    let restored = cofferdam::restore(&args.file, &config)?;
    tell(context, "restored and compared", &restored)
}

pub fn migrate(context: &Context, args: &MigrateArgs) -> Result<ExitCode> {
    context.store_is_there()?;
    let store = context.store_path()?;
    let found = Engine::of(&store).map_err(cofferdam::Error::from)?;
    if found == Some(args.to) {
        let others = Engine::ALL.into_iter().filter(|other| *other != args.to);
        let others: Vec<String> = others.map(|other| format!("--to {other}")).collect();
        return Err(storage(format!(
            "--to {to}: the store `{}` is kept by {to} already, and stays as it is\n\
             help: name another engine, with {}",
            store.display(),
            others.join(" or "),
            to = args.to,
        )));
    }
    let moved = cofferdam::migrate_store(&context.place()?, args.to)?;
    tell(context, "moved and compared", &moved)?;
    if context.engine().is_some_and(|engine| engine != args.to) {
        eprintln!(
            "warning: the configuration names another engine; set [store] engine = \"{}\"",
            args.to
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(context: &Context, what: &str, summary: &BackupSummary) -> Result<ExitCode> {
    if context.is_json() {
        output::json(summary)?;
    } else {
        output::text(&format!(
            "{what}: {} rows, {} runs, {} files\ndigest {}\n",
            summary.rows, summary.heads, summary.files, summary.digest
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
