//! A progress bar on standard error: shown only where that is a terminal, so logs and pipes stay clean.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// Work of a known number of steps. The bar goes away when this is dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Announces `steps` steps of `label`.
    pub fn new(label: &str, steps: u64) -> Progress {
        let visible = std::io::stderr().is_terminal();
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        // The template is fixed; should it ever not parse, the plain style does as well.
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}") {
            bar.set_style(style);
        }
        bar.set_message(label.to_string());
        if visible {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        Progress { bar }
    }
    /// `steps` more steps are done.
    pub fn advance(&self, steps: u64) {
        self.bar.inc(steps);
    }
    /// Changes what is said before the bar.
    pub fn say(&self, label: &str) {
        self.bar.set_message(label.to_string());
    }
    /// Prints a line above the bar; without a terminal, on standard error.
    pub fn note(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }
    /// How many steps are done.
    pub fn done(&self) -> u64 {
        self.bar.position()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_without_a_terminal() {
        let progress = Progress::new("reading", 3);
        progress.advance(1);
        progress.say("still reading");
        progress.advance(2);
        assert_eq!(progress.done(), 3);
    }
}
