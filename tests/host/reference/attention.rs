use approx::assert_abs_diff_eq;

use super::*;

const NONE: f64 = f32::MIN as f64;

/// Which keys each query sees: with equal scores and values 2ʲ, out·count is a set of bits, and lse is ln count.
fn seen(options: &Attention, heads: usize, [queries, keys]: [usize; 2], extra: &[&Value<f64>]) -> Result<Vec<u32>> {
    let items = extra
        .iter()
        .zip(&options.operands)
        .find(|(_, o)| {
            matches!(o, AttentionOperand::KeyLengths | AttentionOperand::QueryLengths | AttentionOperand::Offsets)
        })
        .map_or(1, |(value, _)| value.shape()[0]);
    let packed = options.is_packed();
    let shape = |length: usize, width: usize| -> Shape {
        if packed { [length, heads, width].into() } else { [items, heads, length, width].into() }
    };
    let zeros = |length: usize| array(shape(length, 1), &vec![0.0; shape(length, 1).iter().product()]);
    let rows = shape(keys, 1).iter().product::<usize>();
    let bits = (0..rows).map(|row| f64::from(1u32 << if packed { row / heads } else { row % keys }));
    let v = Array::new(shape(keys, 1), bits.collect())?;
    let (out, lse, _) = reference::attention(options, &zeros(queries)?, &zeros(keys)?, &v, extra)?;
    let sets = out.data().iter().zip(lse.data()).map(|(&out, &lse)| {
        if lse == NONE {
            assert_eq!(out, 0.0);
            return 0;
        }
        let set = (out * lse.exp()).round() as u32;
        assert_abs_diff_eq!(lse, f64::from(set.count_ones()).ln(), epsilon = 1e-12);
        set
    });
    Ok(sets.collect())
}

/// A drawing as in the documentation: a row of `x` and `.` for each query.
#[track_caller]
fn drawn(options: &Attention, keys: usize, drawing: &[&str]) {
    let sets = seen(options, 1, [drawing.len(), keys], &[]).expect("fits");
    let rows = sets.iter().map(|set| (0..keys).map(|j| if set >> j & 1 == 1 { 'x' } else { '.' }).collect::<String>());
    assert_eq!(rows.collect::<Vec<_>>(), drawing);
}

#[test]
fn masks_are_as_drawn_in_the_docs() {
    let causal = |align| Attention { causal: true, align, ..Attention::default() };
    drawn(&causal(Align::TopLeft), 5, &["x....", "xx...", "xxx.."]);
    drawn(&causal(Align::BottomRight), 5, &["xxx..", "xxxx.", "xxxxx"]);
    drawn(&causal(Align::TopLeft), 3, &["x..", "xx.", "xxx", "xxx", "xxx"]);
    drawn(&causal(Align::BottomRight), 3, &["...", "...", "x..", "xx.", "xxx"]);
    drawn(&causal(Align::Offset(-1)), 3, &["...", "x..", "xx."]);
    let window = |left, right, align| Attention { window: Window { left, right }, align, ..Attention::default() };
    drawn(&window(Some(1), Some(0), Align::TopLeft), 5, &["x....", "xx...", ".xx.."]);
    drawn(&window(Some(1), None, Align::TopLeft), 4, &["xxxx", "xxxx", ".xxx", "..xx"]);
    drawn(&window(None, Some(1), Align::BottomRight), 4, &["xxxx", "xxxx"]);
    drawn(&window(Some(0), Some(0), Align::Offset(2)), 4, &["..x.", "...x", "...."]);
    let both = Attention { causal: true, window: Window { left: Some(1), right: Some(5) }, ..Attention::default() };
    drawn(&both, 4, &["x...", "xx..", ".xx.", "..xx"]);
}

/// Every mask at once, against the predicate written once more.
#[test]
fn any_masks_compose_by_and() -> Result {
    use AttentionOperand as A;
    let mut draw = Random::new(5);
    for _ in 0..300 {
        let (b, heads, queries, keys) = (3, 2, draw.size(1, 8), draw.size(1, 12));
        let side = |draw: &mut Random| draw.one_in(2).then(|| draw.size(0, 6) as u32);
        let window = Window { left: side(&mut draw), right: side(&mut draw) };
        let fixed = draw.whole(-5, 9) as i32;
        let align = draw.pick(&[Align::TopLeft, Align::BottomRight, Align::Offset(fixed), Align::PerItem]);
        let causal = draw.one_in(2);
        let lengths = draw.wholes(DType::I32, [b], -1, keys as i64 + 1)?;
        let query_lengths = draw.wholes(DType::I32, [b], -1, queries as i64 + 1)?;
        let offsets = draw.wholes(DType::I32, [b], -5, 9)?;
        let mask = draw.wholes(DType::Bool, [b, 1, queries, keys], 0, 1)?;
        let hidden = draw.wholes(DType::Bool, [heads, 1, keys], 0, 1)?;
        let bias = hidden.to_f64().iter().map(|&x| if x == 1.0 { f32::NEG_INFINITY } else { 0.0 }).collect::<Vec<_>>();
        let bias = Tensor::new([heads, 1, keys], bias)?;
        let (mut operands, mut extra) = (vec![A::KeyLengths], vec![wide(&lengths)]);
        let use_queries = draw.one_in(2);
        let use_mask = draw.one_in(2);
        let use_bias = draw.one_in(2);
        for (wanted, kind, tensor) in [
            (use_bias, A::Bias, &bias),
            (align == Align::PerItem, A::Offsets, &offsets),
            (use_queries, A::QueryLengths, &query_lengths),
            (use_mask, A::Mask, &mask),
        ] {
            if wanted {
                operands.push(kind);
                extra.push(wide(tensor));
            }
        }
        let options = Attention { causal, window, align, operands, ..Attention::default() };
        let sets = seen(&options, heads, [queries, keys], &extra.iter().collect::<Vec<_>>())?;
        let [lengths, query_lengths, offsets] = [&lengths, &query_lengths, &offsets].map(Tensor::to_f64);
        for (row, set) in sets.into_iter().enumerate() {
            let (item, head, i) = (row / queries / heads, row / queries % heads, row % queries);
            let key_length = lengths[item].clamp(0.0, keys as f64) as i64;
            let query_length =
                if use_queries { query_lengths[item].clamp(0.0, queries as f64) as i64 } else { queries as i64 };
            let offset = match align {
                Align::TopLeft => 0,
                Align::BottomRight => key_length - query_length,
                Align::Offset(offset) => offset.into(),
                Align::PerItem => offsets[item] as i64,
            };
            let expected = (0..keys).filter(|&j| {
                let own = i as i64 + offset;
                let (j_, i_) = (j as i64, i as i64);
                (!causal || j_ <= own)
                    && window.left.is_none_or(|left| j_ >= own - i64::from(left))
                    && window.right.is_none_or(|right| j_ <= own + i64::from(right))
                    && j_ < key_length
                    && i_ < query_length
                    && (!use_mask || mask.as_bool().expect("bool")[(item * queries + i) * keys + j])
                    && (!use_bias || !hidden.as_bool().expect("bool")[head * keys + j])
            });
            assert_eq!(set, expected.map(|j| 1 << j).sum::<u32>(), "row {row} of {options:?}");
        }
    }
    Ok(())
}

#[test]
fn a_short_mask_hides_the_keys_past_its_end() -> Result {
    let mask = Tensor::new([2, 3], vec![true, false, true, true, true, true])?;
    let options = Attention { operands: vec![AttentionOperand::Mask], ..Attention::default() };
    assert_eq!(seen(&options, 1, [2, 5], &[&wide(&mask)])?, [0b101, 0b111]);
    let all = Tensor::new([1], vec![true])?;
    assert_eq!(seen(&options, 1, [2, 5], &[&wide(&all)])?, [0b11111; 2]);
    Ok(())
}

#[test]
fn one_hot_keys_select_and_heads_share_keys() -> Result {
    // Query i is 1000 times the unit vector of key (i + 1) % 3. Heads 0 and 1 read key head 0.
    let (heads, key_heads, n) = (4, 2, 3);
    let q = (0..heads * n * n).map(|at| if at % n == (at / n % n + 1) % n { 1000.0 } else { 0.0 });
    let k = (0..key_heads * n * n).map(|at| if at % n == at / n % n { 1.0 } else { 0.0 });
    let v: Vec<f64> = (0..key_heads * n * 2).map(f64::from_usize).collect();
    let q = Array::new([1, heads, n, n], q.collect())?;
    let k = Array::new([1, key_heads, n, n], k.collect())?;
    let options = Attention { scale: Some(1.0), ..Attention::default() };
    let (out, lse, _) = reference::attention(&options, &q, &k, &Array::new([1, key_heads, n, 2], v)?, &[])?;
    let first = [2.0, 3.0, 4.0, 5.0, 0.0, 1.0];
    let second = first.map(|x| x + 6.0);
    assert_eq!(out.data(), [first, first, second, second].concat());
    assert_eq!(lse.data(), [1000.0; 12]);
    Ok(())
}

trait FromUsize {
    fn from_usize(x: usize) -> f64;
}
impl FromUsize for f64 {
    fn from_usize(x: usize) -> f64 {
        x as f64
    }
}

/// Two keys with scores 1 and 3 before softcap, bias and slope.
#[test]
fn scores_by_hand() -> Result {
    use AttentionOperand as A;
    let q = array([1, 1, 1, 1], &[2.0])?;
    let k = array([1, 1, 2, 1], &[0.5, 1.5])?;
    let v = array([1, 1, 2, 1], &[0.0, 1.0])?;
    let weight = |options: Attention, extra: &[&Value<f64>]| -> Result<(f64, f64)> {
        let (out, lse, _) = reference::attention(&options, &q, &k, &v, extra)?;
        Ok((out.data()[0], lse.data()[0]))
    };
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let check = |(out, lse): (f64, f64), s: [f64; 2]| {
        near(&[out, lse], &[sigmoid(s[1] - s[0]), (s[0].exp() + s[1].exp()).ln()], 1e-14);
    };
    // 1/√D is 1 for D = 1.
    check(weight(Attention::default(), &[])?, [1.0, 3.0]);
    check(weight(Attention { scale: Some(-0.5), ..Attention::default() }, &[])?, [-0.5, -1.5]);
    let soft = |s: f64| 2.0 * (s / 2.0).tanh();
    check(weight(Attention { softcap: Some(2.0), ..Attention::default() }, &[])?, [soft(1.0), soft(3.0)]);
    let bias = wide(&f32s([2], &[0.25, -1.0])?);
    let slopes = wide(&f32s([1], &[0.5])?);
    let all = Attention {
        softcap: Some(2.0),
        align: Align::Offset(3),
        operands: vec![A::Slopes, A::Bias],
        ..Attention::default()
    };
    // Slope · (j − (i + offset)), after the softcap.
    check(weight(all, &[&slopes, &bias])?, [soft(1.0) + 0.25 + 0.5 * -3.0, soft(3.0) - 1.0 + 0.5 * -2.0]);
    Ok(())
}

#[test]
fn very_low_biases_are_numbers_like_others() -> Result {
    let q = array([1, 1, 1, 1], &[0.0])?;
    let (k, v) = (array([1, 1, 2, 1], &[0.0, 0.0])?, array([1, 1, 2, 1], &[1.0, 3.0])?);
    let options = Attention { operands: vec![AttentionOperand::Bias], ..Attention::default() };
    for low in [-1e9, f32::MIN] {
        let (out, ..) = reference::attention(&options, &q, &k, &v, &[&wide(&f32s([2], &[low, low])?)])?;
        assert_eq!(out.data(), [2.0]);
    }
    let hidden = wide(&f32s([2], &[f32::NEG_INFINITY; 2])?);
    let (out, lse, _) = reference::attention(&options, &q, &k, &v, &[&hidden])?;
    assert_eq!((out.data()[0], lse.data()[0]), (0.0, NONE));
    Ok(())
}

#[test]
fn packed_sequences_are_separate_runs() -> Result {
    use AttentionOperand as A;
    let mut draw = Random::new(6);
    let (heads, key_heads, width) = (4, 2, 5);
    // Rows before the first start and after the last end belong to no sequence.
    let (q_starts, k_starts) = ([1, 4, 4, 6], [0, 2, 5, 9]);
    let q = random(&mut draw, [8, heads, width])?;
    let (k, v) = (random(&mut draw, [10, key_heads, width])?, random(&mut draw, [10, key_heads, 3])?);
    let slopes = wide(&draw.tensor(DType::F32, [heads], 0.0, 1.0)?);
    let starts = |starts: [i32; 4]| -> Result<Value<f64>> { Ok(wide(&Tensor::new([4], starts.to_vec())?)) };
    let options = |operands| Attention { causal: true, align: Align::BottomRight, operands, ..Attention::default() };
    let extra = [starts(q_starts)?, starts(k_starts)?, slopes.clone()];
    let packed = options(vec![A::QueryOffsets, A::KeyOffsets, A::Slopes]);
    let (out, lse, _) = reference::attention(&packed, &q, &k, &v, &extra.iter().collect::<Vec<_>>())?;
    let mut expected = vec![0.0; 8 * heads * 3];
    let mut expected_lse = vec![NONE; 8 * heads];
    for sequence in 0..3 {
        let cut = |x: &Array<f64>, starts: [i32; 4]| -> Result<Array<f64>> {
            let (start, end) = (starts[sequence] as usize, starts[sequence + 1] as usize);
            let (heads, width) = (x.shape()[1], x.shape()[2]);
            let rows = reference::slice(x, &[start, 0, 0], &[end - start, heads, width], &[1, 1, 1])?;
            let turned = reference::permute(&rows, &[1, 0, 2])?;
            Ok(reference::reshape(&turned, &[1, heads, end - start, width].into())?)
        };
        let (q, k, v) = (cut(&q, q_starts)?, cut(&k, k_starts)?, cut(&v, k_starts)?);
        let (out, lse, _) = reference::attention(&options(vec![A::Slopes]), &q, &k, &v, &[&slopes])?;
        let queries = q.shape()[2];
        for (head, i) in (0..heads).flat_map(|head| (0..queries).map(move |i| (head, i))) {
            let row = (q_starts[sequence] as usize + i) * heads + head;
            expected[row * 3..][..3].copy_from_slice(&out.data()[(head * queries + i) * 3..][..3]);
            expected_lse[row] = lse.data()[head * queries + i];
        }
    }
    assert_eq!((out.data(), lse.data()), (&expected[..], &expected_lse[..]));
    Ok(())
}

#[test]
fn packed_offsets_out_of_range_are_clamped() -> Result {
    use AttentionOperand as A;
    let options = Attention { operands: vec![A::QueryOffsets, A::KeyOffsets, A::KeyLengths], ..Attention::default() };
    let tensors = [vec![-3i32, 1, 99], vec![0, 3, 50]].map(|starts| Tensor::new([3], starts));
    let [q, k] = tensors.map(|tensor| tensor.map(|tensor| wide(&tensor)));
    let lengths = wide(&Tensor::new([2], vec![2i32, 100])?);
    assert_eq!(seen(&options, 1, [3, 5], &[&q?, &k?, &lengths])?, [0b11, 0b11000, 0b11000]);
    Ok(())
}

/// What a user would write by hand gives the same.
#[test]
fn the_composed_graph_agrees() -> Result {
    let mut g = Graph::new();
    let q = g.input("q", DType::F32, [2, 3, 4, 8])?;
    let k = g.input("k", DType::F32, [2, 3, 6, 8])?;
    let v = g.input("v", DType::F32, [2, 3, 6, 5])?;
    let bias = g.input("bias", DType::F32, [4, 6])?;
    let scores = g.matmul_transposed(q, k)?;
    let scale = g.scalar(0.5, scores)?;
    let scores = g.mul(scores, scale)?;
    let scores = g.add(scores, bias)?;
    let weights = g.softmax(scores, -1)?;
    let composed = g.matmul(weights, v)?;
    let options = Attention { scale: Some(0.5), operands: vec![AttentionOperand::Bias], ..Attention::default() };
    let fused = g.push(Op::Attention(options), &[q, k, v, bias])?[0];
    g.output("composed", composed)?;
    g.output("fused", fused)?;
    let mut draw = Random::new(7);
    let inputs = g
        .inputs()
        .map(|(name, value)| Ok((name.to_string(), draw.tensor(DType::F32, g.shape(value), -1.0, 1.0)?)))
        .collect::<Result<BTreeMap<_, _>>>()?;
    let outputs = reference::evaluate_f64(&g, &inputs)?;
    let (a, b) = (outputs["composed"].to_f64(), outputs["fused"].to_f64());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-14));
    Ok(())
}
