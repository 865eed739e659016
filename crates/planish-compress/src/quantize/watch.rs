//! How the caller sees how far quantising is, and stops it.

/// What happens.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A stage of so many steps begins.
    Begin(&'a str, usize),
    /// A step is done.
    Step,
}

/// Tells the caller of every step, and remembers whether it wants no more. Stages that are not needed for a result end
/// early then, and what they found so far is used.
pub struct Watch<'a> {
    tell: &'a mut dyn FnMut(Event<'_>) -> bool,
    stopped: bool,
    /// Whether steps are part of a larger one, and not told.
    silent: bool,
}

impl<'a> Watch<'a> {
    /// `tell` says whether to go on.
    pub fn new(tell: &'a mut dyn FnMut(Event<'_>) -> bool) -> Watch<'a> {
        Watch { tell, stopped: false, silent: false }
    }
    /// A stage of `steps` steps begins.
    pub fn begin(&mut self, stage: &str, steps: usize) {
        self.stopped |= !(self.tell)(Event::Begin(stage, steps));
    }
    /// A step is done; says whether to go on.
    pub fn step(&mut self) -> bool {
        if !self.silent {
            self.stopped |= !(self.tell)(Event::Step);
        }
        !self.stopped
    }
    /// Does `work` without telling of its steps, as part of one larger step.
    pub fn within<T>(&mut self, work: impl FnOnce(&mut Watch<'_>) -> T) -> T {
        let before = std::mem::replace(&mut self.silent, true);
        let done = work(self);
        self.silent = before;
        done
    }
    /// Whether the caller wants no more.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }
}
