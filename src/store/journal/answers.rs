//! Ways back to those who wait for a sync.
//!
//! Waking a task of another thread takes a system call, so a group's answers go to each thread in one piece, and a task there hands them out.
//!
//! Not here: when a request may be answered (`writer`).

use std::cell::RefCell;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;

use super::writer::{Answer, Outcome};

/// Someone who waits for an answer, and the desk of his thread.
#[derive(Debug)]
pub(super) struct Waiting {
    desk: Sender<Vec<Ready>>,
    one: oneshot::Sender<Outcome>,
}

/// Groups that may lie on a desk. More than two only if its thread is busy with something else.
const GROUPS_MAX: usize = 16;

/// An answer on its way to who waits for it.
type Ready = (oneshot::Sender<Outcome>, Outcome);

thread_local! {
    /// Where this thread's answers arrive.
    static DESK: RefCell<Option<Sender<Vec<Ready>>>> = const { RefCell::new(None) };
}

impl Waiting {
    /// Somebody waits on this thread, which runs a runtime.
    pub(super) fn here() -> (Self, oneshot::Receiver<Outcome>) {
        let (one, answered) = oneshot::channel();
        let desk = DESK.with_borrow_mut(|desk| match desk {
            // A closed one belongs to a runtime that has ended.
            Some(desk) if !desk.is_closed() => desk.clone(),
            _ => {
                let (sender, answers) = mpsc::channel(GROUPS_MAX);
                tokio::spawn(hand_out(answers));
                desk.insert(sender).clone()
            }
        });
        (Self { desk, one }, answered)
    }
}

impl Answer for Waiting {
    fn answer(group: Vec<(Self, Outcome)>) {
        let mut desks: Vec<(Sender<Vec<Ready>>, Vec<Ready>)> = Vec::new();
        for (Self { desk, one }, outcome) in group {
            match desks.iter_mut().find(|(other, _)| other.same_channel(&desk)) {
                Some((_, answers)) => answers.push((one, outcome)),
                None => desks.push((desk, vec![(one, outcome)])),
            }
        }
        for (desk, answers) in desks {
            // Where nobody hands them out, or not fast enough, each finds its own way.
            if let Err(refused) = desk.try_send(answers) {
                give(refused.into_inner());
            }
        }
    }
}

async fn hand_out(mut answers: Receiver<Vec<Ready>>) {
    while let Some(some) = answers.recv().await {
        give(some);
    }
}

fn give(answers: Vec<Ready>) {
    for (one, outcome) in answers {
        // A client that went away does not undo the write.
        let _gone = one.send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::runtime::Builder;

    use super::*;
    use crate::store::Appended;

    #[test]
    fn every_thread_gets_its_answers_and_one_whose_runtime_ended_harms_nobody() {
        let (sender, group) = std::sync::mpsc::sync_channel(100);
        let clients: Vec<_> = (0..3_u64)
            .map(|thread| {
                let sender = sender.clone();
                thread::spawn(move || {
                    // Twice on one thread: the desk of the first runtime is closed, and nobody may wait behind it.
                    for round in 0..2_u64 {
                        let runtime = Builder::new_current_thread().build().expect("a runtime");
                        let tasks: Vec<_> = (0..4_u64)
                            .map(|task| {
                                let number = thread * 100 + round * 10 + task;
                                let _context = runtime.enter();
                                let (waiting, answered) = Waiting::here();
                                sender.send((waiting, number)).expect("the writer runs");
                                runtime.spawn(async move { (number, answered.await.expect("answered")) })
                            })
                            .collect();
                        // One goes away before its answer.
                        tasks[3].abort();
                        for task in tasks.into_iter().take(3) {
                            let (number, outcome) = runtime.block_on(task).expect("it runs to its end");
                            assert_eq!(outcome.expect("durable").sequence, number);
                        }
                    }
                })
            })
            .collect();
        drop(sender);
        while let Ok(first) = group.recv() {
            let waiting = std::iter::once(first).chain(group.try_iter());
            let appended = |sequence| Ok(Appended { sequence, repeat: false });
            Waiting::answer(waiting.map(|(waiting, number)| (waiting, appended(number))).collect());
        }
        for client in clients {
            client.join().expect("no assertion failed");
        }
    }
}
