//! Points as three columns: what a history is, whoever gives it; and a checksum over points.

/// Points of one key.
#[derive(Debug, Default, PartialEq)]
pub struct Columns {
    pub steps: Vec<i64>,
    pub timestamps_ms: Vec<i64>,
    pub values: Vec<f64>,
}

impl Columns {
    pub fn with_capacity(points: usize) -> Self {
        let words = || Vec::with_capacity(points);
        Self { steps: words(), timestamps_ms: words(), values: Vec::with_capacity(points) }
    }

    pub fn push(&mut self, step: i64, timestamp_ms: i64, value: f64) {
        self.steps.push(step);
        self.timestamps_ms.push(timestamp_ms);
        self.values.push(value);
    }

    pub fn checksum(&self) -> Checksum {
        let mut sum = Checksum::default();
        let points = self.steps.iter().zip(&self.timestamps_ms).zip(&self.values);
        points.for_each(|((step, timestamp_ms), value)| sum.add(*step, *timestamp_ms, *value));
        sum
    }
}

/// Counts points and sums up all their bits, whatever their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum {
    pub points: u64,
    sum: u64,
}

impl Checksum {
    pub fn add(&mut self, step: i64, timestamp_ms: i64, value: f64) {
        let mixed = (step as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ (timestamp_ms as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
            ^ value.to_bits().wrapping_mul(0x1656_67b1_9e37_79f9);
        self.points += 1;
        self.sum = self.sum.wrapping_add(mixed ^ mixed >> 29);
    }
}
