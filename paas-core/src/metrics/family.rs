//! What is told of a number.

/// Everything that is told under one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// The name.
    pub name: &'static str,
    /// What it tells, in a sentence.
    pub help: &'static str,
    /// What kind of number it is.
    pub r#type: Type,
    /// By what the numbers are told apart.
    pub labels: Vec<&'static str>,
    /// The numbers.
    pub series: Vec<Series>,
}

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// It only grows while the program runs.
    Counter,
    /// What is so at this moment.
    Gauge,
    /// Values by size.
    Histogram,
}

/// One number of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// A value for each of the family's labels, in their order.
    pub labels: Vec<&'static str>,
    /// The number.
    pub value: Value,
}

/// What a number is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram.
    Distribution {
        /// How many values were at most as large as each bound; each counts those of the one before it too.
        buckets: Vec<(f64, u64)>,
        /// All values together.
        sum: f64,
        /// How many they were.
        count: u64,
    },
}

impl Family {
    /// What is so at this moment: a number without labels.
    #[must_use]
    pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        let series = vec![Series { labels: Vec::new(), value: Value::Number(value) }];
        Self { name, help, r#type: Type::Gauge, labels: Vec::new(), series }
    }

    /// What is so at this moment, by one label.
    #[must_use]
    pub fn gauges(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'static str, f64)>,
    ) -> Self {
        let series = values
            .into_iter()
            .map(|(value, number)| Series { labels: vec![value], value: Value::Number(number) });
        Self { name, help, r#type: Type::Gauge, labels: vec![label], series: series.collect() }
    }

    /// The number under these labels, if there is one.
    #[must_use]
    pub fn value(&self, labels: &[&str]) -> Option<&Value> {
        self.series.iter().find(|series| series.labels == labels).map(|series| &series.value)
    }
}
