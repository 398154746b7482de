//! The bandwidth of pods as Kubernetes' bandwidth plugin takes it: annotations whose values are
//! quantities of bits per second.

/// Annotation that limits what a pod receives.
pub(super) const INGRESS_BANDWIDTH: &str = "kubernetes.io/ingress-bandwidth";

/// Annotation that limits what a pod sends.
pub(super) const EGRESS_BANDWIDTH: &str = "kubernetes.io/egress-bandwidth";

/// What Kubernetes takes: 1k to 1P.
const LEAST_BPS: u128 = 1_000;
const MOST_BPS: u128 = 1_000_000_000_000_000;

/// Most digits of a quantity: more would overflow, and mean nothing.
const MAX_DIGITS: usize = 18;

/// Reads a quantity of bits per second; a fraction of a bit counts as a whole one.
pub(super) fn bits_per_second(text: &str) -> Result<u64, &'static str> {
    let bits = quantity(text).ok_or("must be a quantity of bits per second such as 10M")?;
    if bits < LEAST_BPS {
        return Err("is unreasonably small: less than 1k bits per second");
    }
    if bits > MOST_BPS {
        return Err("is unreasonably large: more than 1P bits per second");
    }
    u64::try_from(bits).map_err(|_| "is out of range")
}

/// Reads a Kubernetes quantity (`resource.Quantity`) that is not negative, rounded up.
fn quantity(text: &str) -> Option<u128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let is_of_number = |c: char| c.is_ascii_digit() || c == '.';
    let end = text.find(|c| !is_of_number(c)).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > MAX_DIGITS {
        return None;
    }
    let digits: u128 = digits.parse().ok()?;
    let (power_of_2, power_of_10) = scale(suffix)?;
    let down = i32::try_from(fraction.len()).ok()? - power_of_10;
    let shifted = digits << power_of_2;
    let ten = 10u128.checked_pow(down.unsigned_abs());
    if down <= 0 {
        // Too large for any limit either way.
        return Some(ten.map_or(u128::MAX, |ten| shifted.saturating_mul(ten)));
    }
    Some(ten.map_or(1, |ten| shifted.div_ceil(ten)).min(shifted))
}

/// Returns the powers of 2 and of 10 that a suffix stands for.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "" => (0, 0),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let is_short = exponent.len() <= 3;
            (0, exponent.parse().ok().filter(|_| is_short)?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, bits) in [
            ("1k", 1_000),
            ("1000", 1_000),
            ("+10M", 10_000_000),
            ("1.5G", 1_500_000_000),
            (".5M", 500_000),
            ("5.k", 5_000),
            ("1Mi", 1 << 20),
            ("1.5Ki", 1_536),
            ("1e6", 1_000_000),
            ("12E3", 12_000),
            ("2500000m", 2_500),
            ("1000.0001", 1_001),
            ("1P", 1_000_000_000_000_000),
        ] {
            assert_eq!(bits_per_second(text), Ok(bits), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_or_out_of_range_is_refused() {
        for text in [
            "",
            "k",
            ".",
            "10 M",
            "-1M",
            "10Mbit",
            "1K",
            "1e",
            "1e+-3",
            "0x10",
            "1..2",
            "1.2.3",
            "1e9999",
            "1234567890123456789k",
            "１M",
        ] {
            let error = bits_per_second(text).unwrap_err();
            assert!(error.starts_with("must be a quantity"), "{text}: {error}");
        }
        for text in ["0", "999", "1m", "0.5k", "1e-99", "1n"] {
            let error = bits_per_second(text).unwrap_err();
            assert!(error.contains("small"), "{text}: {error}");
        }
        for text in ["1.1P", "1E", "1Ei", "1e99", "999999999999999999Ei"] {
            let error = bits_per_second(text).unwrap_err();
            assert!(error.contains("large"), "{text}: {error}");
        }
    }
}
