//! What an evaluation takes of the host's memory, before it takes it.

use super::Real;
use crate::{DType, Error, Graph, Result, graph::Op};

/// Bytes that an evaluation may take where the system doesn't say what there is.
const UNKNOWN: u64 = 16 << 30;

/// Bytes that any machine has.
const SMALL: u64 = 256 << 20;

/// An error if the values of a graph take more bytes than there are.
pub(super) fn check<R: Real>(graph: &Graph) -> Result<()> {
    // What any machine has need not be asked for.
    if needed::<R>(graph) <= SMALL { Ok(()) } else { within::<R>(graph, available()) }
}

/// An error if the values of a graph take more than these bytes.
fn within<R: Real>(graph: &Graph, most: u64) -> Result<()> {
    let needed = needed::<R>(graph);
    if needed <= most {
        return Ok(());
    }
    Err(Error::Limit {
        what: "reference: bytes of all values of the graph, which are kept".into(),
        value: needed,
        limit: most,
        hint: "the CPU reference is for small sizes: make the tensors smaller, or run the graph on a device".into(),
    })
}

/// Bytes of all values, and of what the largest operation works with beside them.
fn needed<R: Real>(graph: &Graph) -> u64 {
    let element = |dtype: DType| match dtype {
        DType::F32 | DType::F16 | DType::BF16 => size_of::<R>(),
        DType::I32 | DType::U32 => 4,
        DType::Bool => 1,
    };
    let elements = |value: &crate::graph::Value| value.shape.elements().unwrap_or(usize::MAX) as u64;
    let (mut all, mut largest) = (0u64, 0u64);
    for node in graph.nodes() {
        let values = node.outputs.iter().map(|&output| graph.value(output));
        let results = values
            .clone()
            .fold(0u64, |sum, value| sum.saturating_add(elements(value).saturating_mul(element(value.dtype) as u64)));
        // Moving elements goes by a list of places, which is made axis by axis; a result is rounded into a second one.
        let moves = node.op.is_view() || matches!(node.op, Op::Pad { .. } | Op::Where | Op::Binary { .. });
        let places = if moves { 2 * size_of::<usize>() } else { 0 };
        let count = values.map(elements).max().unwrap_or(0);
        all = all.saturating_add(results);
        largest = largest.max(results.saturating_add(count.saturating_mul(places as u64)));
    }
    all.saturating_add(largest)
}

/// Bytes that the system can still give, as far as it says.
fn available() -> u64 {
    #[cfg(target_os = "linux")]
    {
        let read = |file: &str| std::fs::read_to_string(file).ok();
        let machine = read("/proc/meminfo").and_then(|text| of_machine(&text));
        let group = read("/sys/fs/cgroup/memory.max").zip(read("/sys/fs/cgroup/memory.current"));
        let group = group.and_then(|(most, now)| of_group(&most, &now));
        [machine, group].into_iter().flatten().min().unwrap_or(UNKNOWN)
    }
    #[cfg(not(target_os = "linux"))]
    {
        UNKNOWN
    }
}

/// The line `MemAvailable:   123 kB` of /proc/meminfo.
#[cfg(target_os = "linux")]
fn of_machine(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What a control group may still take: `max` or bytes, and what it has.
#[cfg(target_os = "linux")]
fn of_group(most: &str, now: &str) -> Option<u64> {
    Some(most.trim().parse::<u64>().ok()?.saturating_sub(now.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    #[test]
    fn what_would_not_fit_is_refused_with_the_bytes() {
        let mut g = Graph::new();
        let one = g.constant(Tensor::new([1], vec![1.0f32]).expect("fits")).expect("fits");
        let wide = g.broadcast(one, [1000]).expect("fits");
        g.output("y", wide).expect("fits");
        // 1 and 1000 elements of 8 bytes; once more for the result, and two lists of places.
        assert_eq!(needed::<f64>(&g), 8 + 8000 + 8000 + 16_000);
        within::<f64>(&g, 32_008).expect("fits");
        assert_eq!(
            within::<f64>(&g, 32_007).expect_err("a byte less").to_string(),
            "reference: bytes of all values of the graph, which are kept: 32008 is over the limit of 32007; the CPU reference is \
             for small sizes: make the tensors smaller, or run the graph on a device"
        );
        assert_eq!(needed::<f32>(&g), 4 + 4000 + 4000 + 16_000);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_system_says_is_read() {
        let text = "MemTotal:       16384 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(of_machine(text), Some(2 << 20));
        assert_eq!((of_group("max\n", "7\n"), of_group("100\n", "40\n")), (None, Some(60)));
        assert!(available() > 0);
    }
}
