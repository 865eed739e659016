//! What the machine takes for each kind of work: the constants of the cost model, all of them.
//!
//! An algorithm counts what it does ([`Work`]: so many multiply-adds, so many bytes from beyond the second-level cache,
//! so many addresses), a machine has a [`Rate`] for each kind, and the estimate is the sum of their products
//! ([`Rates::milliseconds`]). That the estimate is linear in the rates is the point: they can be fitted to measurements
//! by least squares (`planish tune --fit`), on any machine, without touching an algorithm. What is not linear, such as
//! fetching that hides behind arithmetic, is counted by the algorithms as work of another kind ([`Rate::WaitedByte`]).
//!
//! The defaults of each instruction set were fitted on one core and on two of a Zen 4 of 3.67 GHz; those beside the tile
//! unit on a core and on two of an Emerald Rapids, where vectors are faster than that, the last cache is three times as slow
//! and storing results takes longer: with its own rates networks take 5 to 10 % less in `f32`. Products on the tile unit
//! and of few bits are told from single layers instead, measured while no neighbour used the unit: it makes them two to three
//! times as slow for seconds at a time.

use crate::isa::Isa;
use std::ops::AddAssign;

/// The bytes that stay in a core's second-level cache while others pass through: half of the 1 MiB that most have today.
pub const SECOND_LEVEL: f64 = 512.0 * 1024.0;

/// The bytes that stay in the last cache while others pass through.
pub const LAST_LEVEL: f64 = 16e6;

macro_rules! rates {
    ($($rate:ident $name:literal $meaning:literal [$portable:literal $avx2:literal $avx512:literal $amx:literal])*) => {
        /// A kind of work. Its rate is the nanoseconds that one unit takes a core.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Rate {
            $(#[doc = concat!($meaning, ".")] $rate,)*
        }

        impl Rate {
            /// Every kind.
            pub const ALL: &[Rate] = &[$(Rate::$rate),*];

            /// The name in files and reports.
            pub fn name(self) -> &'static str {
                match self { $(Rate::$rate => $name),* }
            }

            /// What one unit is.
            pub fn meaning(self) -> &'static str {
                match self { $(Rate::$rate => $meaning),* }
            }
        }

        impl Rates {
            /// The rates of an instruction set where nothing was fitted.
            pub fn defaults(isa: Isa) -> Rates {
                Rates(match isa {
                    Isa::Portable => [$($portable),*],
                    Isa::Avx2 => [$($avx2),*],
                    Isa::Avx512 => [$($avx512),*],
                    Isa::Amx => [$($amx),*],
                })
            }
        }
    };
}

rates! {
    MultiplyAdd "multiply-add" "A multiply-add of vectors in a product" [0.4366 0.0907 0.2826 0.188]
    PanelStep "panel step" "A row of a panel of weights that meets a tile of rows" [0.0 0.6258 0.0078 0.0232]
    ResultVector "result vector" "A vector of a product's result, stored and finished" [5.7065 3.1307 2.3816 4.123]
    CollidingMultiplyAdd "colliding multiply-add" "What a multiply-add takes longer where rows meet in few sets of the \
        first-level cache" [0.0 0.0 0.0364 0.0297]
    TileProduct "tile product" "A product of two full tiles on the tile unit" [0.0 0.0 5.5 4.0]
    TileLoad "tile load" "A full tile of an operand, loaded" [0.0 0.0 9.0 3.0]
    WeightsByte "weights byte" "A byte of weights from beyond the second-level cache" [0.0147 0.0139 0.0079 0.026]
    WaitedByte "waited byte" "A byte of weights that the arithmetic is too short to hide" [0.0 0.0005 0.006 0.0129]
    MemoryByte "memory byte" "What a byte takes longer from memory than from the last cache" [0.0137 0.0293 0.0396 0.0565]
    ActivationByte "activation byte" "A byte of input or output beyond the second-level cache" [0.0034 0.0024 0.0055 0.0082]
    StreamedByte "streamed byte" "A byte of input or output from memory, where there is little arithmetic to hide it" [0.0745 0.0586 0.0579 0.0412]
    Address "address" "An address of a tap, made" [1.7804 1.8715 1.4563 2.6786]
    AddressLoad "address load" "An address of a tap, loaded for a panel" [0.0283 0.0 0.0 0.0]
    PaddedByte "padded byte" "A byte copied into a padded image" [0.0225 0.0334 0.0288 0.0788]
    CopiedRun "copied run" "A run of a patch that is copied" [5.5955 7.6371 7.4122 9.6192]
    CopiedByte "copied byte" "A byte of a patch that is copied" [0.0224 0.0187 0.0169 0.0346]
    StrassenSum "strassen sum" "A vector of each quarter of a product whose sums wait for each other" [3.7992 0.6574 4.9304 6.1888]
    StrassenVector "strassen vector" "A vector of a quarter's row that is summed with the others" [8.2729 2.7362 7.1384 13.0831]
    DepthwiseTap "depthwise tap" "A tap of a vector of channels where neighbouring pixels share loads" [1.6 0.1978 0.4398 0.4347]
    DepthwiseLoneTap "depthwise lone tap" "A tap of a vector of channels that is loaded by itself" [0.7032 0.3653 0.5862 0.5946]
    DepthwiseVector "depthwise vector" "A vector of a depthwise result, stored and finished" [2.3612 1.3827 1.4232 3.0392]
    DepthwisePixel "depthwise pixel" "A pixel of a depthwise result, found" [2.9389 4.0213 1.7376 3.3264]
    GroupedStep "grouped step" "A multiply-add with its permutation" [3.5427 0.2206 0.3915 0.44]
    GroupedTap "grouped tap" "A tap of a vector of output channels" [1.5934 0.3495 0.4614 0.5213]
    GroupedVector "grouped vector" "A vector of a grouped result, stored and finished" [5.1815 1.9965 1.983 3.6397]
    GroupedPixel "grouped pixel" "A pixel of a grouped result, found" [9.5413 1.9277 1.1798 2.0599]
    SignWord "sign word" "A word of signs of a vector of channels that is compared and counted" [2.6 0.75 0.23 0.3]
    MaskedWord "masked word" "A word of each of a vector of channels that is compared, masked and counted" [3.9 0.85 0.3 0.35]
    BitVector "bit vector" "A vector of a result of bits, stored and finished" [4.0 2.5 1.6 1.6]
    PackedWord "packed word" "A word of bits that is packed" [8.0 1.0 0.5 0.5]
    WinogradInput "winograd input" "A vector of a point of a transformed input tile" [0.0 0.474 0.5807 1.8378]
    WinogradOutput "winograd output" "A vector of a point of a product, transformed back" [5.5687 2.5441 2.2576 4.553]
    WinogradStage "winograd stage" "A vector of a point that is transformed, for each point along an axis of its tile" [0.2162 0.0971 0.1541 0.1581]
    WinogradSum "winograd sum" "A vector of a sum that is cut off and added to those before" [4.5569 3.0585 2.8046 7.7906]
    FourierStage "fourier stage" "A vector of a tile's number in one stage of its transform" [1.8486 0.8726 1.1583 1.5446]
    FourierNumber "fourier number" "A vector of a number of a tile that is larger than the first-level cache" [0.0686 0.3965 0.5498 1.6948]
    FourierProduct "fourier product" "A vector of a product of spectra, stored" [0.0 0.0 0.0 0.0]
    MovedByte "moved byte" "A byte whose layout is changed" [0.0766 0.0279 0.0284 0.0487]
    Call "call" "A call of a kernel" [363.1 361.5 361.0 905.5]
    Region "region" "A region of a run that several threads work on" [885.0 729.2 571.8 1558.7]
}

/// How much of each kind of work a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work([f64; Rate::ALL.len()]);

impl Default for Work {
    fn default() -> Self {
        Work([0.0; Rate::ALL.len()])
    }
}

impl Work {
    /// Work of these kinds.
    pub fn of(parts: &[(Rate, f64)]) -> Work {
        let mut work = Work::default();
        for &(rate, count) in parts {
            work.0[rate as usize] += count;
        }
        work
    }

    /// How much of one kind.
    pub fn count(&self, rate: Rate) -> f64 {
        self.0[rate as usize]
    }

    /// What each thread has of it where `busy` threads share it evenly.
    pub fn shared(self, busy: f64) -> Work {
        self.times(1.0 / busy.max(1.0))
    }

    /// So many times this.
    pub fn times(mut self, factor: f64) -> Work {
        self.0.iter_mut().for_each(|count| *count *= factor);
        self
    }

    /// This and a call of a kernel with so many parallel regions, which cost nothing on one thread.
    pub fn called(mut self, regions: usize, threads: usize) -> Work {
        let regions = if threads > 1 { regions as f64 } else { 0.0 };
        self += Work::of(&[(Rate::Call, 1.0), (Rate::Region, regions)]);
        self
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }
}

/// The bytes of weights that are read `passes` times by one thread while it does these multiply-adds of vectors: those
/// from beyond the second-level cache, those from memory, and those that the arithmetic cannot hide.
///
/// A network's other layers pass between two runs, so the first time weights are never in the second-level cache.
pub fn weights_read(bytes: f64, passes: f64, multiply_adds: f64, isa: Isa) -> Work {
    let again = if bytes > SECOND_LEVEL { bytes * (passes - 1.0).max(0.0) } else { 0.0 };
    let read = bytes + again;
    // A multiply-add of 16 numbers hides about 8 bytes on any machine of today.
    let hidden = multiply_adds * isa.lanes() as f64 * 0.5;
    let memory = read * (1.0 - LAST_LEVEL / bytes).max(0.0);
    Work::of(&[
        (Rate::WeightsByte, read),
        (Rate::WaitedByte, (read - hidden).max(0.0)),
        (Rate::MemoryByte, memory),
    ])
}

/// A machine's nanoseconds for a unit of each kind of work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates([f64; Rate::ALL.len()]);

impl Rates {
    /// The nanoseconds of one unit.
    pub fn get(&self, rate: Rate) -> f64 {
        self.0[rate as usize]
    }

    /// Sets the nanoseconds of one unit: finite and not negative, else it stays as it is.
    pub fn set(&mut self, rate: Rate, nanoseconds: f64) {
        if nanoseconds.is_finite() && nanoseconds >= 0.0 {
            self.0[rate as usize] = nanoseconds;
        }
    }

    /// The estimated time of some work.
    pub fn milliseconds(&self, work: &Work) -> f64 {
        self.0.iter().zip(work.0).map(|(rate, count)| rate * count).sum::<f64>() * 1e-6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_sums_of_products() {
        let mut rates = Rates::defaults(Isa::Portable);
        rates.set(Rate::MultiplyAdd, 2.0);
        rates.set(Rate::Call, 1000.0);
        rates.set(Rate::Address, f64::NAN);
        assert_eq!(rates.get(Rate::Address), Rates::defaults(Isa::Portable).get(Rate::Address));
        let work = Work::of(&[(Rate::MultiplyAdd, 1e6)]).shared(2.0).called(3, 1);
        assert_eq!(rates.milliseconds(&work), 1.0 + 1e-3);
        assert_eq!(work.count(Rate::Region), 0.0);
        assert_eq!(work.called(3, 2).count(Rate::Region), 3.0);
    }

    #[test]
    fn names_differ() {
        for (i, rate) in Rate::ALL.iter().enumerate() {
            assert_eq!(*rate as usize, i);
            assert!(Rate::ALL[..i].iter().all(|other| other.name() != rate.name()), "{}", rate.name());
            assert!(!rate.meaning().contains("  "), "{}", rate.meaning());
        }
    }

    #[test]
    fn long_arithmetic_hides_weights() {
        let short = weights_read(1e6, 2.0, 0.0, Isa::Avx512);
        assert_eq!([short.count(Rate::WeightsByte), short.count(Rate::WaitedByte)], [2e6, 2e6]);
        let long = weights_read(1e5, 2.0, 1e6, Isa::Avx512);
        assert_eq!([long.count(Rate::WeightsByte), long.count(Rate::WaitedByte)], [1e5, 0.0]);
        assert_eq!(weights_read(3e7, 1.0, 0.0, Isa::Avx2).count(Rate::MemoryByte), 1.4e7);
        assert_eq!(weights_read(0.0, 1.0, 0.0, Isa::Avx2).count(Rate::MemoryByte), 0.0);
    }
}
