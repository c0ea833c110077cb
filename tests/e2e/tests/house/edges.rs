//! Who may depend on whom.

use std::path::Path;

use crate::repository::Package;

/// Each crate and the crates of this repository that it may depend on.
///
/// The decisions know nobody; store and host know only the decisions, not each other; the
/// engine alone brings them together.
const EDGES: &[(&str, &[&str])] = &[
    ("cofferdam-core", &[]),
    ("cofferdam-store", &["cofferdam-core"]),
    ("cofferdam-host", &["cofferdam-core"]),
    (
        "cofferdam",
        &["cofferdam-core", "cofferdam-host", "cofferdam-store"],
    ),
    ("cofferdam-server", &["cofferdam", "cofferdam-core"]),
    // The host by itself for what needs no store: `call` and the `plugin` verbs.
    (
        "cofferdam-cli",
        &[
            "cofferdam",
            "cofferdam-core",
            "cofferdam-host",
            "cofferdam-server",
        ],
    ),
    ("cofferdam-sdk", &["cofferdam-sdk-macros"]),
    ("cofferdam-sdk-macros", &[]),
    ("cofferdam-standins", &[]),
    ("embed-example", &["cofferdam"]),
    ("xtask", &[]),
];

/// They measure or test all of it, and nothing depends on them.
const FREE: [&str; 4] = [
    "cofferdam-e2e",
    "cofferdam-hostile",
    "cofferdam-simulation",
    "cofferdam-bench",
];

/// What any crate but a guest may use in its tests beside its own edges.
const TEST_HELP: &str = "cofferdam-standins";

/// What would let a decision depend on more than its arguments.
const IMPURE: [&str; 12] = [
    "async-std",
    "chrono",
    "fastrand",
    "fjall",
    "getrandom",
    "rand",
    "rusqlite",
    "sled",
    "smol",
    "time",
    "tokio",
    "wasmtime",
];

/// Every dependency that the table does not allow, and every crate that it lacks.
pub(crate) fn complaints(packages: &[Package]) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in packages
        .iter()
        .filter(|package| !FREE.contains(&package.name.as_str()))
    {
        let name = &package.name;
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| known == name) else {
            complaints.push(format!(
                "{name} is not in the table of edges: add it there, with what it may depend on, \
                 and to ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dep| dep.path.is_some()) {
            let other = dependency.name.as_str();
            let for_tests = dependency.is_dev && other == TEST_HELP;
            if !allowed.contains(&other) && !for_tests {
                complaints.push(format!(
                    "{name} must not depend on {other}: move what it needs into a crate that \
                     both may use, or pass it in (ARCHITECTURE.md has the picture)"
                ));
            }
        }
    }
    complaints
}

/// What makes the core depend on more than its arguments.
pub(crate) fn impure_core(packages: &[Package]) -> Vec<String> {
    let core = packages
        .iter()
        .filter(|package| package.name == "cofferdam-core");
    let dependencies = core.flat_map(|package| &package.dependencies);
    dependencies
        .filter(|dep| !dep.is_dev && IMPURE.contains(&dep.name.as_str()))
        .map(|dep| {
            format!(
                "cofferdam-core must not depend on {}: take the time, a random number or an \
                 answer as an argument and let the engine fetch it",
                dep.name
            )
        })
        .collect()
}

/// Guests that link a part of this repository other than the SDK and each other.
pub(crate) fn host_inside_guests(root: &Path, guests: &[Package]) -> Vec<String> {
    let mut complaints = Vec::new();
    for guest in guests {
        for dependency in &guest.dependencies {
            let inside = dependency
                .path
                .as_ref()
                .and_then(|path| path.strip_prefix(root).ok());
            if inside.is_some_and(|path| path.starts_with("runtime")) {
                complaints.push(format!(
                    "the plugin {} must not depend on {}: a plugin links cofferdam-sdk and knows \
                     the host only through wit/",
                    guest.name, dependency.name
                ));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::Dependency;

    fn package(name: &str, on: &[(&str, bool)]) -> Package {
        let dependency = |(name, is_dev): &(&str, bool)| Dependency {
            name: (*name).into(),
            is_dev: *is_dev,
            path: name
                .starts_with("cofferdam")
                .then(|| format!("/r/runtime/{name}").into()),
        };
        Package {
            name: name.into(),
            dependencies: on.iter().map(dependency).collect(),
        }
    }

    #[test]
    fn a_host_that_reaches_for_the_store_is_named() {
        let host = package(
            "cofferdam-host",
            &[("cofferdam-core", false), ("cofferdam-store", true)],
        );
        let told = complaints(&[host]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("cofferdam-host must not depend on cofferdam-store"));
    }

    #[test]
    fn stand_ins_are_for_tests_only() {
        assert!(
            complaints(&[package("cofferdam-cli", &[("cofferdam-standins", true)])]).is_empty()
        );
        assert_eq!(
            complaints(&[package("cofferdam-cli", &[("cofferdam-standins", false)])]).len(),
            1
        );
    }

    #[test]
    fn a_crate_that_nobody_placed_is_named() {
        assert!(complaints(&[package("cofferdam-misc", &[])])[0].contains("table of edges"));
        assert!(
            complaints(&[package("cofferdam-bench", &[("cofferdam-store", false)])]).is_empty()
        );
    }

    #[test]
    fn a_core_with_a_runtime_is_named() {
        let told = impure_core(&[package(
            "cofferdam-core",
            &[("tokio", false), ("rand", true)],
        )]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("tokio"));
    }

    #[test]
    fn a_plugin_with_a_part_of_the_host_is_named() {
        let guest = package(
            "cofferdam-plugin-x",
            &[("cofferdam-core", true), ("serde", false)],
        );
        let told = host_inside_guests(Path::new("/r"), &[guest]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("cofferdam-plugin-x must not depend on cofferdam-core"));
    }
}
