//! How sure a share of pictures is, and the difference of two shares that were counted on the same pictures.
//!
//! A share has Wilson's interval (Wilson, JASA 1927), which stays inside 0 to 1 and holds its level near both ends. The
//! difference of two shares on the same pictures depends only on the pictures that the two answer differently: its interval
//! is Agresti and Min's (Statistics in Medicine 2005), Wald's with half a picture added to each of the four cells; whether
//! there is a difference at all is McNemar's test in its exact form.

/// The quantile of the normal distribution for 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's interval of 95 % for a share, of which `hits` of `all` were counted; 0 to 1 where nothing was counted.
pub fn wilson(hits: usize, all: usize) -> [f64; 2] {
    if all == 0 {
        return [0.0, 1.0];
    }
    let (n, p) = (all as f64, hits as f64 / all as f64);
    let middle = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0)]
}

/// The interval of 95 % for the mean of `values`, by the normal distribution.
pub fn mean_interval(values: &[f64]) -> [f64; 2] {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    let half = Z * (variance / n).sqrt();
    [mean - half, mean + half]
}

/// Two shares counted on the same things.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// Things.
    pub all: usize,
    /// Those that only the first counts.
    pub lost: usize,
    /// Those that only the second counts.
    pub gained: usize,
}

impl Paired {
    /// Counts `first` and `second`, which belong together.
    pub fn of(first: impl IntoIterator<Item = bool>, second: impl IntoIterator<Item = bool>) -> Paired {
        let mut found = Paired { all: 0, lost: 0, gained: 0 };
        for (first, second) in first.into_iter().zip(second) {
            found.all += 1;
            found.lost += usize::from(first && !second);
            found.gained += usize::from(!first && second);
        }
        found
    }
    /// The first share less the second.
    pub fn drop(&self) -> f64 {
        (self.lost as f64 - self.gained as f64) / self.all.max(1) as f64
    }
    /// Agresti and Min's interval of 95 % for [`Self::drop`].
    pub fn interval(&self) -> [f64; 2] {
        let n = self.all as f64 + 2.0;
        let (b, c) = (self.lost as f64 + 0.5, self.gained as f64 + 0.5);
        let half = Z * (b + c - (b - c).powi(2) / n).sqrt() / n;
        [((b - c) / n - half).max(-1.0), ((b - c) / n + half).min(1.0)]
    }
    /// The probability of counts at least as uneven if neither share were larger: McNemar's test, exact and two-sided.
    pub fn p_value(&self) -> f64 {
        let n = self.lost + self.gained;
        let few = self.lost.min(self.gained);
        // Terms of the binomial distribution with probability one half, as logarithms: 2⁻ⁿ is too small for large n.
        let mut term = -(n as f64) * std::f64::consts::LN_2;
        let mut sum = 0.0;
        for k in 0..=few {
            sum += term.exp();
            term += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
        }
        (2.0 * sum).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 5e-4
    }

    #[test]
    fn wilsons_interval_is_as_published() {
        // statsmodels: proportion_confint(9, 10, method="wilson"), (0, 20), (640, 700)
        for ((hits, all), [low, high]) in
            [((9, 10), [0.5958, 0.9821]), ((0, 20), [0.0, 0.1611]), ((640, 700), [0.8913, 0.9328])]
        {
            let found = wilson(hits, all);
            assert!(near(found[0], low) && near(found[1], high), "{found:?}");
        }
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
        assert!(wilson(5, 5)[1] <= 1.0);
    }

    #[test]
    fn paired_shares_count_what_differs() {
        let first = [true, true, true, false, false];
        let second = [true, false, false, true, false];
        let found = Paired::of(first, second);
        assert_eq!((found.all, found.lost, found.gained), (5, 2, 1));
        assert!(near(found.drop(), 0.2));
        // scipy: binomtest(1, 3).pvalue, binomtest(3, 15).pvalue, binomtest(400, 1000).pvalue
        assert!(near(found.p_value(), 1.0));
        assert!(near(Paired { all: 99, lost: 12, gained: 3 }.p_value(), 0.035156));
        assert!(Paired { all: 9999, lost: 600, gained: 400 }.p_value() < 1e-9);
        assert_eq!(Paired { all: 7, lost: 0, gained: 0 }.p_value(), 1.0);
        // (12.5 - 3.5) / 101, and 1.96 times the root of 16 - 81 / 101 over 101.
        let [low, high] = Paired { all: 99, lost: 12, gained: 3 }.interval();
        assert!(near(low, 0.0891 - 0.0756) && near(high, 0.0891 + 0.0756), "{low} {high}");
    }

    #[test]
    fn means_have_an_interval() {
        let [low, high] = mean_interval(&[1.0, 2.0, 3.0]);
        assert!(near(low, 2.0 - 1.1316) && near(high, 2.0 + 1.1316), "{low} {high}");
        assert_eq!(mean_interval(&[4.0]), [4.0, 4.0]);
    }
}
