//! The loop: looks, keys, signals, and a picture after each.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::app::{Action, App};
use super::draw::draw;
use super::sample::Sample;
use super::screen::Screen;
use crate::control::Caller;
use crate::failure::Failure;

/// How often the picture is drawn anew though nothing has come: what it says of time goes on.
const REDRAW: Duration = Duration::from_secs(1);

/// Shows what there is until somebody quits.
///
/// # Errors
/// When nobody answers at the beginning, and when the terminal fails. Later, who does not answer is asked again.
pub fn run(caller: Caller, interval: Duration) -> Result<(), Failure> {
    let first = Sample::take(&caller)?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime("cannot start the runtime", error))?;
    let shown = runtime.block_on(show(caller, first, interval));
    // The thread that reads keys waits for one; it goes with the process.
    runtime.shutdown_background();
    shown.map_err(|error| Failure::runtime("the terminal failed", error))
}

/// What comes from outside.
enum News {
    Looked(Box<Result<Sample, String>>),
    Key(KeyEvent),
    /// Another size, or the time for another picture.
    Redraw,
    /// The terminal has gone away, or somebody wants the end.
    End,
    /// Somebody wants the process stopped for a while.
    Stop,
    /// It was stopped by a signal that nobody can catch, and goes on: whoever had the terminal meanwhile has changed it.
    Continued,
}

async fn show(caller: Caller, first: Sample, every: Duration) -> io::Result<()> {
    let mut signals = Signals::listen()?;
    let mut app = App::new(every);
    app.looked(Ok(first), Instant::now());
    let mut screen = Screen::take()?;
    // One place each: who looks or types faster than is drawn waits.
    let (news, mut looks) = mpsc::channel(1);
    thread::Builder::new().name("top-looks".to_owned()).spawn(move || look(&caller, every, &news))?;
    let (news, mut keys) = mpsc::channel(1);
    thread::Builder::new().name("top-keys".to_owned()).spawn(move || read_keys(&news))?;
    let mut redraw = interval(REDRAW);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        screen.terminal().draw(|frame| draw(frame, &app, Instant::now()))?;
        let news = tokio::select! {
            biased; // Who wants the end gets it, however fast the rest comes.
            news = signals.next() => news,
            key = keys.recv() => key.unwrap_or(News::End),
            looked = looks.recv() => looked.unwrap_or(News::End),
            _ = redraw.tick() => News::Redraw,
        };
        match news {
            News::End => return Ok(()),
            News::Stop => screen = screen.suspend()?,
            News::Continued => {
                drop(screen);
                screen = Screen::take()?;
            }
            News::Redraw => {}
            News::Looked(_) if app.paused => {}
            News::Looked(looked) => app.looked(*looked, Instant::now()),
            News::Key(key) => match meaning(key) {
                Some(Action::Quit) => return Ok(()),
                Some(Action::Suspend) => screen = screen.suspend()?,
                Some(action) => app.act(action),
                None => {}
            },
        }
    }
}

/// Looks until nobody wants to know.
fn look(caller: &Caller, every: Duration, news: &mpsc::Sender<News>) {
    loop {
        thread::sleep(every);
        let looked = Sample::take(caller).map_err(|failure| failure.to_string());
        if news.blocking_send(News::Looked(Box::new(looked))).is_err() {
            return;
        }
    }
}

/// Reads until the terminal has gone away.
fn read_keys(news: &mpsc::Sender<News>) {
    loop {
        let told = match event::read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => News::Key(key),
            Ok(Event::Resize(..)) => News::Redraw,
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => News::End,
        };
        let ended = matches!(told, News::End);
        if news.blocking_send(told).is_err() || ended {
            return;
        }
    }
}

fn meaning(key: KeyEvent) -> Option<Action> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('c') if control => Action::Quit,
        KeyCode::Char('z') if control => Action::Suspend,
        _ if control => return None,
        KeyCode::Char('q') | KeyCode::Esc => Action::Quit,
        KeyCode::Tab | KeyCode::Right | KeyCode::Down => Action::Next,
        KeyCode::BackTab | KeyCode::Left | KeyCode::Up => Action::Previous,
        KeyCode::Char('p' | ' ') => Action::Pause,
        KeyCode::Char('s') => Action::Sort,
        _ => return None,
    })
}

/// The signals that concern a terminal.
struct Signals {
    end: [Signal; 3],
    stop: Signal,
    go_on: Signal,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        let listen = |raw| signal(SignalKind::from_raw(raw));
        use nix::sys::signal::Signal::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP};
        Ok(Signals {
            end: [listen(SIGTERM as i32)?, listen(SIGINT as i32)?, listen(SIGHUP as i32)?],
            stop: listen(SIGTSTP as i32)?,
            go_on: listen(SIGCONT as i32)?,
        })
    }

    async fn next(&mut self) -> News {
        let [term, int, hup] = &mut self.end;
        tokio::select! {
            _ = term.recv() => News::End,
            _ = int.recv() => News::End,
            _ = hup.recv() => News::End,
            _ = self.stop.recv() => News::Stop,
            _ = self.go_on.recv() => News::Continued,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_help_says() {
        let key = |code, modifiers| meaning(KeyEvent::new(code, modifiers));
        let (none, control) = (KeyModifiers::NONE, KeyModifiers::CONTROL);
        for (code, action) in [
            (KeyCode::Char('q'), Action::Quit),
            (KeyCode::Esc, Action::Quit),
            (KeyCode::Tab, Action::Next),
            (KeyCode::Right, Action::Next),
            (KeyCode::Left, Action::Previous),
            (KeyCode::BackTab, Action::Previous),
            (KeyCode::Char(' '), Action::Pause),
            (KeyCode::Char('s'), Action::Sort),
        ] {
            assert_eq!(key(code, none), Some(action), "{code:?}");
        }
        assert_eq!(key(KeyCode::Char('c'), control), Some(Action::Quit));
        assert_eq!(key(KeyCode::Char('z'), control), Some(Action::Suspend));
        assert_eq!((key(KeyCode::Char('s'), control), key(KeyCode::Char('x'), none)), (None, None));
    }
}
