//! Every guest of the corpus is survived.

use std::path::PathBuf;

use cofferdam_hostile::{corpus, harness};

/// Compiled guests are shared by the tests, which are processes of their own.
fn cache() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("hostile-code")
}

async fn survive(name: &str) {
    let case = corpus().into_iter().find(|case| case.name == name);
    let case = case.expect("the corpus has a case of this name");
    if let Err(error) = harness::survive(&case, Some(cache())).await {
        panic!("{name}: {error:#}");
    }
}

/// One test for each case, so that the runner names the one that fails.
macro_rules! survived {
    ($($name:ident)*) => {
        const TESTED: &[&str] = &[$(stringify!($name)),*];
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                survive(stringify!($name)).await;
            }
        )*
    };
}

survived! {
    infinite_loop
    loop_without_fuel
    infinite_loop_past_the_deadline
    loop_in_start
    deep_recursion
    unreachable
    panic_with_a_secret_in_its_message
    memory_bomb
    memory_bomb_in_start
    memory_bomb_over_many_memories
    table_bomb
    table_bomb_beyond_the_slot
    bulk_memory_at_the_limit
    ten_thousand_memories
    fifty_memories
    fifty_tables
    handle_bomb
    resource_bomb
    huge_list_to_an_import
    huge_string_to_an_import
    invalid_utf8_to_an_import
    random_bytes_without_end
    log_flood_without_end
    log_lines_of_megabytes
    log_fields_that_grow_when_parsed
    sleep_past_the_deadline
    output_over_the_limit
    output_of_fifty_megabytes
    deeply_nested_output
    output_of_half_a_million_values
    output_that_is_not_utf8
    output_outside_of_memory
    output_that_is_not_json
    requests_without_end
    guest_timeouts_of_a_day
    slow_drip_response
    request_that_never_ends
    sleep_of_an_hour_through_the_language
    component_over_the_limit
    random_bytes
    random_bytes_after_a_header
    truncated_component
    component_of_fifty_megabytes_of_nothing_needed
    ten_thousand_functions
}

#[test]
fn every_case_has_a_test() {
    let names: Vec<_> = corpus().iter().map(|case| case.name).collect();
    assert_eq!(names, TESTED);
}
