//! What people and queues do with whole runs.

use super::*;

const PAY: &str = "  - pay: {call: pay.charge, with: {n: \"${ .n }\"}, metadata: {cofferdam: {compensate: {call: pay.refund, with: {n: \"${ $input.n }\"}}}}}\n";
const TELL: &str = "  - tell: {call: crm.upsert, with: {id: \"${ .n }\"}}\n";

fn two() -> String {
    format!("{PAY}{TELL}")
}

/// Answers everything but calls to the CRM.
fn crm_down(attempt: &Attempt) -> Result<Value, Failure> {
    if attempt.connection == "crm" {
        return Err(Failure::new(Class::InvalidInput, "bad_id", "no such id"));
    }
    echo(attempt)
}

/// A run whose journal is kept.
struct Kept {
    play: Play,
    journal: Vec<(Event, u64)>,
}

impl Kept {
    fn new(tasks: &str) -> Self {
        let head = "document: {dsl: \"1.0.3\", namespace: t, name: t, version: \"1.0.0\"}\ndo:\n";
        let workflow = compile(&format!("{head}{tasks}"));
        let run = Run::new("run-1", workflow, Arc::new(bindings()));
        let play = Play {
            run,
            now_ms: 1_000,
            effects: Vec::new(),
            calls: Vec::new(),
        };
        let journal = Vec::new();
        Self { play, journal }
    }

    fn begun(tasks: &str, input: Value) -> Self {
        let mut kept = Self::new(tasks);
        kept.tell(Event::Begun { input });
        kept
    }

    fn tell(&mut self, event: Event) {
        self.journal.push((event.clone(), self.play.now_ms));
        self.play.tell(event);
    }

    fn refuses(&mut self, event: Event) -> Illegal {
        let before = format!("{:?}", self.play.run);
        let illegal = self.play.run.step(event, self.play.now_ms).unwrap_err();
        assert_eq!(format!("{:?}", self.play.run), before);
        illegal
    }

    fn answer(&mut self, mut answer: impl FnMut(&Attempt) -> Result<Value, Failure>) {
        while let Some(attempt) = self.next_attempt() {
            let ticket = attempt.ticket;
            let digest = "d".to_owned();
            self.tell(Event::Started { ticket, digest });
            match answer(&attempt) {
                Ok(output) => self.tell(Event::Succeeded { ticket, output }),
                Err(failure) => self.tell(Event::Failed {
                    ticket,
                    failure,
                    draw: 0,
                }),
            }
        }
    }

    fn next_attempt(&mut self) -> Option<Attempt> {
        let is_attempt = |e: &Effect| matches!(e, Effect::Attempt(_));
        let index = self.play.effects.iter().position(is_attempt)?;
        match self.play.effects.remove(index) {
            Effect::Attempt(attempt) => {
                self.play.calls.push(attempt.clone());
                Some(attempt)
            }
            _ => None,
        }
    }

    /// The same run, folded from its journal.
    fn folded(&self, run: Run) -> Run {
        let mut run = run;
        for (event, at) in &self.journal {
            run.step(event.clone(), *at).unwrap();
        }
        run
    }

    fn fresh(&self) -> Run {
        let run = &self.play.run;
        Run::new("run-1", Arc::clone(run.workflow()), Arc::new(bindings()))
    }

    fn finished(&self, until: Option<&str>) -> Option<TakenOver> {
        let run = self.fresh().recording(until.map(str::to_owned));
        self.folded(run).finished()
    }

    /// The state is what the journal says, whatever order it was made in.
    fn folds(&self) {
        let folded = self.folded(self.fresh());
        assert_eq!(format!("{folded:?}"), format!("{:?}", self.play.run));
    }

    fn redrive(&mut self, input: Option<Value>) {
        let taken = self.finished(None).unwrap();
        self.tell(Event::Redriven { input, taken });
        self.tell(Event::Admitted);
    }
}

#[test]
fn a_queued_run_begins_when_it_is_admitted_and_not_before() {
    let mut kept = Kept::new(TELL);
    kept.tell(Event::Queued {
        input: json!({"n": 1}),
    });
    assert_eq!(kept.play.run.status(), Status::Queued);
    assert!(kept.play.run.is_idle() && kept.play.effects.is_empty());
    kept.tell(Event::Admitted);
    kept.answer(echo);
    assert_eq!(kept.play.output(), json!({"id": 1}));
    kept.folds();
}

#[test]
fn a_cancelled_run_ends_without_undoing() {
    let mut kept = Kept::begun(&two(), json!({"n": 1}));
    let attempt = kept.next_attempt().unwrap();
    let ticket = attempt.ticket;
    kept.tell(Event::Started {
        ticket,
        digest: "d".into(),
    });
    let reason = Some("wrong customer".to_owned());
    kept.tell(Event::Cancelled {
        reason: reason.clone(),
        compensate: false,
    });
    // The attempt under way is waited for.
    assert_eq!(kept.play.run.status(), Status::Running);
    let output = json!({"n": 1});
    kept.tell(Event::Succeeded { ticket, output });
    let compensated = false;
    let expected = Outcome::Cancelled {
        reason,
        compensated,
    };
    assert_eq!(kept.play.run.outcome(), Some(&expected));
    assert_eq!(kept.play.called(), ["pay.charge"]);
    kept.folds();
}

#[test]
fn a_cancelled_run_undoes_in_reverse_order_what_may_have_happened() {
    let tasks = format!("{}{}", PAY, PAY.replace("pay:", "more:"));
    let mut kept = Kept::begun(&tasks, json!({"n": 1}));
    let mut charges = 0;
    while charges < 2 {
        let attempt = kept.next_attempt().unwrap();
        let ticket = attempt.ticket;
        charges += 1;
        kept.tell(Event::Started {
            ticket,
            digest: "d".into(),
        });
        if charges < 2 {
            let output = json!({"n": 1});
            kept.tell(Event::Succeeded { ticket, output });
        } else {
            kept.tell(Event::Cancelled {
                reason: None,
                compensate: true,
            });
            assert!(kept.next_attempt().is_none(), "undone before it ended");
            kept.tell(Event::Lost { ticket });
        }
    }
    assert_eq!(kept.play.run.status(), Status::Compensating);
    kept.answer(echo);
    assert_eq!(kept.play.run.status(), Status::Cancelled);
    let undone: Vec<&str> = kept.play.calls[2..].iter().map(|a| &*a.task).collect();
    assert_eq!(undone, ["undo:/more", "undo:/pay"]);
    kept.folds();
}

#[test]
fn a_run_that_ended_or_is_ending_is_not_cancelled() {
    let mut ended = Kept::begun("  - a: {set: {x: 1}}\n", json!({}));
    let cancel = |compensate| Event::Cancelled {
        reason: None,
        compensate,
    };
    let illegal = ended.refuses(cancel(true)).to_string();
    assert_eq!(illegal, "a run that is ended cannot take cancelled");
    let mut ending = Kept::begun(PAY, json!({"n": 1}));
    let ticket = ending.next_attempt().unwrap().ticket;
    ending.tell(Event::Started {
        ticket,
        digest: "d".into(),
    });
    ending.tell(cancel(false));
    ending.refuses(cancel(true));
}

#[test]
fn a_suspended_run_begins_no_attempt_and_lets_what_is_under_way_end() {
    let mut kept = Kept::begun(&two(), json!({"n": 1}));
    let ticket = kept.next_attempt().unwrap().ticket;
    let digest = "d".to_owned();
    kept.tell(Event::Started { ticket, digest });
    kept.tell(Event::Suspended { reason: None });
    let output = json!({"n": 1});
    kept.tell(Event::Succeeded { ticket, output });
    assert_eq!(kept.play.run.status(), Status::Suspended);
    assert!(kept.play.run.is_idle());
    assert!(kept.next_attempt().is_none());
    assert!(kept.play.run.outstanding().is_empty());
    kept.tell(Event::Resumed);
    kept.answer(echo);
    assert_eq!(kept.play.run.status(), Status::Completed);
    kept.folds();
}

#[test]
fn an_attempt_that_was_asked_for_before_the_suspension_does_not_begin_in_it() {
    let mut kept = Kept::begun(TELL, json!({"n": 1}));
    let ticket = kept.next_attempt().unwrap().ticket;
    kept.tell(Event::Suspended { reason: None });
    let digest = "d".to_owned();
    kept.refuses(Event::Started { ticket, digest });
    kept.tell(Event::Resumed);
    kept.answer(echo);
    assert_eq!(kept.play.output(), json!({"id": 1}));
}

#[test]
fn timers_that_come_due_wait_for_the_resumption() {
    let mut kept = Kept::begun("  - w: {wait: {seconds: 1}}\n", json!({}));
    kept.tell(Event::Suspended { reason: None });
    assert_eq!(kept.play.run.next_due_ms(), None);
    kept.play.now_ms = 60_000;
    kept.tell(Event::Tick);
    assert_eq!(kept.play.run.status(), Status::Suspended);
    kept.tell(Event::Resumed);
    assert_eq!(kept.play.run.next_due_ms(), Some(2_000));
    kept.tell(Event::Tick);
    assert_eq!(kept.play.run.status(), Status::Completed);
    kept.folds();
}

#[test]
fn a_redriven_run_goes_on_from_the_task_that_failed() {
    let mut kept = Kept::begun(TELL, json!({"n": 1}));
    kept.answer(crm_down);
    assert_eq!(kept.play.run.status(), Status::Faulted);
    kept.redrive(None);
    kept.answer(echo);
    assert_eq!(kept.play.output(), json!({"id": 1}));
    let keys: Vec<&str> = kept.play.calls.iter().map(|a| &*a.key).collect();
    assert_eq!(keys, ["run-1/tell", "run-1/tell"]);
    let report = kept.play.run.reports().next().unwrap();
    assert_eq!(report.attempts.len(), 2, "earlier attempts are kept");
    kept.folds();
}

#[test]
fn what_was_finished_is_not_repeated_by_a_redrive() {
    let tasks = "  - seen: {call: crm.get, with: {}, export: {as: \"${ {seen: .x} }\"}}\n  - each: {for: {in: \"${ [1, 2] }\"}, do: [{one: {call: pay.charge, with: {n: \"${ $item }\"}}}]}\n  - safe: {try: [{no: {raise: {error: {type: t, status: 400}}}}], catch: {do: [{yes: {emit: {event: {with: {source: s, type: t}}}}}]}}\n  - last: {call: chat.post, with: {seen: \"${ $context.seen }\"}}\n";
    let mut kept = Kept::begun(tasks, json!({}));
    let mut chat_works = false;
    let mut answer = |attempt: &Attempt| match &*attempt.connection {
        "chat" if !chat_works => {
            chat_works = true;
            Err(Failure::new(Class::NotFound, "no_channel", "no channel"))
        }
        "crm" => Ok(json!({"x": 7})),
        _ => echo(attempt),
    };
    kept.answer(&mut answer);
    // `once` is in review first; a person gives up.
    kept.tell(Event::Decided {
        task: "/last".into(),
        decision: Decision::Reject {
            reason: "no".into(),
        },
    });
    assert_eq!(kept.play.run.status(), Status::Faulted);
    assert_eq!(kept.play.run.failed_task().unwrap().0, "/last");
    let emitted = |kept: &Kept| {
        let is = |e: &&Effect| matches!(e, Effect::Emit { .. });
        kept.play.effects.iter().filter(is).count()
    };
    assert_eq!(emitted(&kept), 1);
    kept.redrive(None);
    kept.answer(&mut answer);
    assert_eq!(kept.play.output(), json!({"seen": 7}));
    assert_eq!(
        kept.play.called(),
        [
            "crm.get",
            "pay.charge",
            "pay.charge",
            "chat.post",
            "chat.post"
        ]
    );
    assert_eq!(emitted(&kept), 1);
    kept.folds();
}

#[test]
fn a_redrive_can_put_the_input_of_the_failed_task_right() {
    let tasks = "  - a: {set: {n: 1}}\n  - tell: {call: crm.upsert, with: {id: \"${ .n }\"}}\n";
    let mut kept = Kept::begun(tasks, json!({}));
    kept.answer(crm_down);
    assert_eq!(
        kept.play.run.failed_task(),
        Some(("/tell", &json!({"n": 1})))
    );
    kept.redrive(Some(json!({"n": 2})));
    kept.answer(echo);
    assert_eq!(kept.play.output(), json!({"id": 2}));
    kept.folds();
}

#[test]
fn a_run_whose_effects_were_undone_is_not_redriven() {
    let mut kept = Kept::begun(&two(), json!({"n": 1}));
    kept.answer(crm_down);
    assert_eq!(kept.play.run.status(), Status::Faulted);
    assert!(kept.play.called().contains(&"pay.refund".to_owned()));
    let taken = kept.finished(None).unwrap();
    let redriven = Event::Redriven { input: None, taken };
    assert_eq!(kept.refuses(redriven), Illegal::Undone);
}

#[test]
fn a_run_that_completed_or_was_cancelled_is_not_redriven() {
    let redriven = || Event::Redriven {
        input: None,
        taken: TakenOver::new(),
    };
    Kept::begun("  - a: {set: {x: 1}}\n", json!({})).refuses(redriven());
    let mut cancelled = Kept::begun(TELL, json!({"n": 1}));
    cancelled.tell(Event::Cancelled {
        reason: None,
        compensate: false,
    });
    cancelled.refuses(redriven());
}

#[test]
fn a_fork_takes_over_what_was_finished_before_the_task_and_repeats_the_rest() {
    let tasks = "  - a: {call: crm.get, with: {}, metadata: {cofferdam: {fallback: [{value: {x: 0}}]}}}\n  - b: {call: crm.upsert, with: {x: \"${ .x }\"}}\n  - c: {call: crm.archive, with: {x: \"${ .x }\"}}\n";
    let mut kept = Kept::begun(tasks, json!({}));
    kept.answer(|attempt| match &*attempt.action {
        "get" => Err(Failure::new(Class::NotFound, "gone", "gone")),
        _ => echo(attempt),
    });
    assert_eq!(kept.play.run.status(), Status::Completed);
    assert_eq!(kept.finished(Some("/nowhere")), None);
    let taken = kept.finished(Some("/b")).unwrap();
    assert_eq!(taken.keys().collect::<Vec<_>>(), ["/a"]);
    let mut fork = Kept::new(tasks);
    fork.tell(Event::Forked {
        input: json!({}),
        origin: Origin {
            run: "run-0".into(),
            task: "/b".into(),
        },
        taken,
    });
    fork.tell(Event::Admitted);
    fork.answer(echo);
    assert_eq!(fork.play.output(), json!({"x": 0}));
    assert_eq!(fork.play.called(), ["crm.upsert", "crm.archive"]);
    let first = fork.play.run.reports().next().unwrap().clone();
    assert_eq!(first.provenance, Some(Provenance::Default));
    assert_eq!(first.taken_from.as_deref(), Some("run-0"));
    assert!(fork.play.run.is_degraded());
    fork.folds();
}

#[test]
fn what_was_finished_survives_the_journal_s_encoding() {
    let mut kept = Kept::begun(TELL, json!({"n": 1}));
    kept.answer(echo);
    let event = Event::Forked {
        input: json!(1),
        origin: Origin {
            run: "r".into(),
            task: "/t".into(),
        },
        taken: kept.finished(None).unwrap(),
    };
    let text = serde_json::to_string(&event).unwrap();
    assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
}
