//! The checker is checked: each deliberate defect of the engine is seen within so many seeds.

use cofferdam_simulation::{Mutation, Options, host, play};

/// Within these a defect is seen, or the oracle is blind to it.
const SEEDS_MAX: u64 = 1_000;

fn is_seen(mutation: Mutation) {
    let host = host().expect("wasmtime can be set up");
    let options = Options {
        mutation: Some(mutation),
        ..Options::default()
    };
    let seen = (0..SEEDS_MAX).find(|seed| {
        let played = play(*seed, &host, options).expect("a world can be made");
        !played.violations.is_empty()
    });
    assert!(
        seen.is_some(),
        "{mutation:?} is not seen in {SEEDS_MAX} worlds"
    );
}

macro_rules! seen {
    ($($name:ident: $mutation:ident;)*) => {
        $(
            #[test]
            fn $name() {
                is_seen(Mutation::$mutation);
            }
        )*

        #[test]
        fn no_mutation_is_left_out() {
            assert_eq!(Mutation::ALL.to_vec(), [$(Mutation::$mutation),*]);
        }
    };
}

seen! {
    an_effect_without_an_intent_is_seen: SkipIntent;
    an_acknowledgement_before_the_flush_is_seen: AcknowledgeEarly;
    attempts_that_are_forgotten_at_resume_are_seen: ForgetAttempts;
    a_forgotten_timer_is_seen: ForgetTimer;
    a_place_that_is_given_back_twice_is_seen: ReleaseTwice;
    a_lost_attempt_that_is_not_told_is_seen: ForgetLost;
    an_effect_that_is_repeated_after_an_unknown_outcome_is_seen: RepeatUnknown;
    who_is_told_before_it_is_durable_is_seen: TellFirst;
    a_lost_row_of_a_parked_task_is_seen: ForgetParked;
    an_undoing_that_is_skipped_is_seen: SkipUndo;
    keys_that_change_with_the_attempt_are_seen: FreshKeys;
    outcomes_that_are_held_back_too_long_are_seen: HoldBack;
    second_attempts_beyond_the_budget_are_seen: HedgeFreely;
    an_event_that_is_taken_before_it_is_heard_is_seen: TakeLetterFirst;
    a_lost_row_of_a_listener_is_seen: ForgetListener;
    a_schedule_that_moves_on_before_its_run_is_begun_is_seen: MoveScheduleFirst;
    a_run_too_many_in_memory_is_seen: Crowd;
    a_concurrency_key_that_is_lost_is_seen: LoseKey;
    a_call_that_leaves_the_outbox_too_early_is_seen: EmptyOutboxFirst;
    a_subscriber_that_moves_on_too_early_is_seen: MoveCursorFirst;
    a_redrive_that_does_everything_again_is_seen: RedriveAll;
    a_suspension_that_does_not_hold_is_seen: SuspendNobody;
    a_checkpoint_that_lacks_a_record_is_seen: LateCheckpoint;
    a_run_that_is_woken_late_is_seen: LateTimers;
    a_schedule_that_is_late_is_seen: LateSchedules;
    a_review_that_nobody_ends_in_time_is_seen: LateReviews;
    an_answer_to_another_question_is_seen: MixAnswers;
    answers_that_are_mixed_up_at_resume_are_seen: MixRecords;
    an_earlier_answer_that_is_told_to_be_younger_is_seen: FreshenAnswers;
    branches_that_are_mixed_up_are_seen: TurnForks;
    calls_that_come_too_fast_are_seen: Hurry;
    a_run_that_goes_before_a_more_important_one_is_seen: TurnPriorities;
    a_tenant_that_goes_before_all_others_is_seen: Favour;
    a_subscriber_that_is_not_set_back_is_seen: ForgetReplay;
    dead_letters_that_are_not_told_again_are_seen: ForgetLetters;
    a_purge_of_more_than_was_meant_is_seen: PurgeMore;
    a_purge_that_leaves_something_is_seen: PurgeLess;
    a_run_that_is_removed_before_its_time_is_seen: SweepEarly;
    a_run_that_is_removed_from_under_its_dead_letter_is_seen: SweepLetters;
    a_turn_that_comes_late_is_seen: LateTurns;
    a_key_that_is_forgotten_before_its_run_is_seen: ForgetKeys;
    a_key_that_is_remembered_after_its_run_is_seen: KeepKeys;
    a_start_that_never_begins_another_run_is_seen: NeverRestart;
    a_delivery_that_gives_something_else_is_seen: LoseDelivered;
}
