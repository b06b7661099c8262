//! Numbers for people.

/// A measured value: whole numbers in full with `,` between thousands, others
/// with three digits that count.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        value.to_string()
    } else if size >= 1e15 {
        format!("{value:.2e}")
    } else if value.fract() == 0.0 || size >= 100.0 {
        grouped(value)
    } else if size >= 0.001 {
        let digits = if size >= 10.0 {
            1
        } else if size >= 1.0 {
            2
        } else {
            3
        };
        let fixed = format!("{value:.digits$}");
        fixed.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{value:.2e}")
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_right() {
        let cases = [
            (0.0, "0"),
            (5.0, "5"),
            (-1_234.0, "-1,234"),
            (262_144.0, "262,144"),
            (1_234_567.8, "1,234,568"),
            (0.9, "0.9"),
            (0.123_45, "0.123"),
            (12.345, "12.3"),
            (1.5, "1.5"),
            (0.000_012_3, "1.23e-5"),
            (f64::INFINITY, "inf"),
            (1e18, "1.00e18"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
