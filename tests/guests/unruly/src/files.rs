//! What a connector can try with directories that it was given, and with all others.

use cofferdam_sdk::prelude::*;

/// One thing to try; `path` and `to` are below the directory that the guest knows as `within`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileUse {
    /// The directory as the guest knows it.
    #[serde(default = "data")]
    pub within: String,
    /// What to do.
    pub what: FileDeed,
    /// Where.
    pub path: String,
    /// Where to, or what a link points to, or what is written.
    #[serde(default)]
    pub to: String,
    /// How often; each answer is told once.
    #[serde(default = "once")]
    pub times: u32,
}

/// What can be done to a file.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileDeed {
    /// Reads it, following links.
    Read,
    /// Writes it, following links, and makes it if it is not there.
    Write,
    /// Opens it as a directory, and reads `to` in it.
    Enter,
    /// Makes a symbolic link to `to`.
    Symlink,
    /// Makes another name `to` for it.
    Link,
    /// Gives it the name `to`.
    Rename,
    /// Takes it away.
    Remove,
    /// Makes a directory.
    MakeDirectory,
    /// Tells where a link points to.
    ReadLink,
    /// Cuts it to nothing.
    Truncate,
    /// Sets its times.
    Touch,
}

/// What came of it.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct FileSeen {
    /// Texts that were read, each once.
    pub texts: Vec<String>,
    /// Errors, each once.
    pub errors: Vec<String>,
}

fn data() -> String {
    "/data".to_owned()
}

fn once() -> u32 {
    1
}

pub(crate) fn try_it(input: &FileUse) -> FileSeen {
    let mut seen = FileSeen::default();
    for _ in 0..input.times {
        let (list, text) = match attempt(input) {
            Ok(text) => (&mut seen.texts, text),
            Err(error) => (&mut seen.errors, error),
        };
        if !list.contains(&text) {
            list.push(text);
        }
    }
    seen
}

#[cfg(not(target_arch = "wasm32"))]
fn attempt(_input: &FileUse) -> Result<String, String> {
    Err("only a component has directories".to_owned())
}

#[cfg(target_arch = "wasm32")]
fn attempt(input: &FileUse) -> Result<String, String> {
    use wasip2::filesystem::types::{
        DescriptorFlags, ErrorCode, NewTimestamp, OpenFlags, PathFlags,
    };

    const FOLLOW: PathFlags = PathFlags::SYMLINK_FOLLOW;
    const CHANGE: DescriptorFlags = DescriptorFlags::READ.union(DescriptorFlags::WRITE);
    let FileUse {
        within, path, to, ..
    } = input;
    let folders = wasip2::filesystem::preopens::get_directories();
    let folder = folders.iter().find(|(_, name)| name == within);
    let (folder, _) = folder.ok_or_else(|| "no such directory was given".to_owned())?;
    let read = |path: &str| {
        let file = folder.open_at(FOLLOW, path, OpenFlags::empty(), DescriptorFlags::READ)?;
        let (bytes, _) = file.read(4_096, 0)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let done = |result: Result<(), ErrorCode>| result.map(|()| "done".to_owned());
    let result = match input.what {
        FileDeed::Read => read(path),
        FileDeed::Write => folder
            .open_at(FOLLOW, path, OpenFlags::CREATE, CHANGE)
            .and_then(|file| file.write(to.as_bytes(), 0))
            .map(|bytes| format!("{bytes} bytes")),
        FileDeed::Enter => folder
            .open_at(FOLLOW, path, OpenFlags::DIRECTORY, DescriptorFlags::READ)
            .and_then(|inner| {
                let empty = OpenFlags::empty();
                let file = inner.open_at(FOLLOW, to, empty, DescriptorFlags::READ)?;
                let (bytes, _) = file.read(4_096, 0)?;
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }),
        FileDeed::Symlink => done(folder.symlink_at(to, path)),
        FileDeed::Link => done(folder.link_at(PathFlags::empty(), path, folder, to)),
        FileDeed::Rename => done(folder.rename_at(path, folder, to)),
        FileDeed::Remove => done(folder.unlink_file_at(path)),
        FileDeed::MakeDirectory => done(folder.create_directory_at(path)),
        FileDeed::ReadLink => folder.readlink_at(path),
        FileDeed::Truncate => folder
            .open_at(FOLLOW, path, OpenFlags::TRUNCATE, CHANGE)
            .map(|_| "done".to_owned()),
        FileDeed::Touch => {
            done(folder.set_times_at(FOLLOW, path, NewTimestamp::Now, NewTimestamp::Now))
        }
    };
    result.map_err(|error| error.name().to_owned())
}
