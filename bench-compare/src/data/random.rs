//! NumPy's default generator (PCG64 seeded by a seed sequence) and the three distributions that the data use.
//!
//! Contract: the same bits as `numpy.random.default_rng(seed)`, so that the data are those that other harnesses make in
//! Python. `data::tests` holds digests of what Python wrote.

/// A seeded PCG64 (XSL-RR 128/64).
pub struct Random {
    state: u128,
    increment: u128,
    /// The upper half of a word whose lower half was given out.
    half: Option<u32>,
}

const PCG_MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

impl Random {
    pub fn new(seed: u32) -> Self {
        let [a, b, c, d] = seed_words(seed);
        let increment = ((u128::from(c) << 64 | u128::from(d)) << 1) | 1;
        let mut random = Self { state: 0, increment, half: None };
        random.step();
        random.state = random.state.wrapping_add(u128::from(a) << 64 | u128::from(b));
        random.step();
        random
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(PCG_MULTIPLIER).wrapping_add(self.increment);
    }

    fn next_u64(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(half) = self.half.take() {
            return half;
        }
        let word = self.next_u64();
        self.half = Some((word >> 32) as u32);
        word as u32
    }

    /// In [0, 1), 53 bits.
    fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `uniform(low, high)`.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.next_f64()
    }

    /// `integers(below)`, by Lemire's multiplication.
    pub fn below(&mut self, below: u32) -> u32 {
        let threshold = below.wrapping_neg() % below;
        loop {
            let wide = u64::from(self.next_u32()) * u64::from(below);
            if wide as u32 >= threshold {
                return (wide >> 32) as u32;
            }
        }
    }

    /// `standard_normal()`, by a ziggurat of 256 layers.
    pub fn normal(&mut self, ziggurat: &Ziggurat) -> f64 {
        loop {
            let word = self.next_u64();
            let layer = (word & 0xff) as usize;
            let magnitude = word >> 9 & ((1 << 52) - 1);
            let x = magnitude as f64 * ziggurat.width[layer];
            let signed = if word >> 8 & 1 == 1 { -x } else { x };
            if magnitude < ziggurat.inside[layer] {
                return signed;
            }
            if layer == 0 {
                return self.tail(magnitude >> 8 & 1 == 1);
            }
            let (upper, lower) = (ziggurat.height[layer - 1], ziggurat.height[layer]);
            if (upper - lower) * self.next_f64() + lower < (-0.5 * x * x).exp() {
                return signed;
            }
        }
    }

    /// Beyond the last layer (Marsaglia's exponential rejection).
    fn tail(&mut self, is_negative: bool) -> f64 {
        loop {
            let beyond = -(-self.next_f64()).ln_1p() / EDGE;
            let height = -(-self.next_f64()).ln_1p();
            if height + height > beyond * beyond {
                return if is_negative { -(EDGE + beyond) } else { EDGE + beyond };
            }
        }
    }
}

/// The four words that a seed becomes: NumPy's `SeedSequence(seed).generate_state(4)`.
fn seed_words(seed: u32) -> [u64; 4] {
    let mut constant = 0x43b0_d7e5u32;
    let mut hash = |mut value: u32| {
        value ^= constant;
        constant = constant.wrapping_mul(0x931e_8875);
        value = value.wrapping_mul(constant);
        value ^ value >> 16
    };
    let mut pool = [seed, 0, 0, 0].map(&mut hash);
    for from in 0..4 {
        for to in (0..4).filter(|to| *to != from) {
            let mixed =
                pool[to].wrapping_mul(0xca01_f9dd).wrapping_sub(hash(pool[from]).wrapping_mul(0x4973_f715));
            pool[to] = mixed ^ mixed >> 16;
        }
    }
    let mut constant = 0x8b51_f9ddu32;
    let mut words = pool.iter().cycle().map(|word| {
        let mut value = word ^ constant;
        constant = constant.wrapping_mul(0x58f3_8ded);
        value = value.wrapping_mul(constant);
        value ^ value >> 16
    });
    std::array::from_fn(|_| {
        let low = u64::from(words.next().unwrap_or_default());
        low | u64::from(words.next().unwrap_or_default()) << 32
    })
}

/// Where the last layer ends, for 256 layers of equal area under exp(-x^2/2).
const EDGE: f64 = 3.654_152_885_361_009;
/// The area of a layer.
const AREA: f64 = 0.004_928_673_233_974_655;

/// The layers: for each, the width of a unit of magnitude, the magnitude below which a point is surely inside, and the
/// density at its edge.
pub struct Ziggurat {
    width: [f64; 256],
    inside: [u64; 256],
    height: [f64; 256],
}

impl Ziggurat {
    pub fn new() -> Self {
        let units = (1u64 << 52) as f64;
        let density = |x: f64| (-0.5 * x * x).exp();
        let base = AREA / density(EDGE);
        let mut layers = Self { width: [0.0; 256], inside: [0; 256], height: [0.0; 256] };
        layers.inside[0] = (EDGE / base * units) as u64;
        layers.width[0] = base / units;
        layers.width[255] = EDGE / units;
        layers.height[0] = 1.0;
        layers.height[255] = density(EDGE);
        let mut outer = EDGE;
        for layer in (1..255).rev() {
            let edge = (-2.0 * (AREA / outer + density(outer)).ln()).sqrt();
            layers.inside[layer + 1] = (edge / outer * units) as u64;
            layers.height[layer] = density(edge);
            layers.width[layer] = edge / units;
            outer = edge;
        }
        layers
    }
}
