//! The connector of `docs/write-a-connector.md` compiles, passes its tests, and is the one that
//! the page shows.

#[path = "tutorial/weather.rs"]
mod weather;

const PAGE: &str = include_str!("../../../docs/write-a-connector.md");
const CONNECTOR: &str = include_str!("tutorial/weather.rs");

#[test]
fn the_page_shows_the_connector_that_is_tested() {
    let at = CONNECTOR.find("#[cfg(test)]").unwrap();
    for part in [&CONNECTOR[..at], &CONNECTOR[at..]] {
        assert!(
            PAGE.contains(part.trim()),
            "the page lacks, or shows otherwise:\n{part}"
        );
    }
}

#[test]
fn the_whole_connector_fits_a_screen() {
    let code = &CONNECTOR[..CONNECTOR.find("#[cfg(test)]").unwrap()];
    let lines = code.lines().filter(|line| !line.trim().is_empty());
    assert!(lines.count() < 40);
}
