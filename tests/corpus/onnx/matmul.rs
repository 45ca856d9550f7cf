//! Products of matrices.

use tilewise::{
    Shape, ValueId,
    graph::{Op, Reduce},
};

use super::{
    import::{Builder, Call, Result, Slot},
    pointwise::{one, scaled},
};

pub(crate) fn find(operator: &str) -> Option<Builder> {
    Some(match operator {
        "MatMul" => |c| {
            let (a, b) = (c.x(0)?, c.x(1)?);
            one(c.g().matmul(a, b)?)
        },
        "Gemm" => gemm,
        "Einsum" => einsum,
        _ => return None,
    })
}

/// `alpha · A · B + beta · C`
fn gemm(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let (a, b) = (c.x(0)?, c.x(1)?);
    let op = Op::Matmul { transpose_a: c.node.flag("transA"), transpose_b: c.node.flag("transB") };
    let mut y = c.push(op, &[a, b])?;
    let (alpha, beta) = (c.float("alpha")?, c.float("beta")?);
    if alpha != 1.0 {
        y = scaled(c, y, alpha)?;
    }
    if beta != 0.0
        && let Some(mut term) = c.optional(2)?
    {
        if beta != 1.0 {
            term = scaled(c, term, beta)?;
        }
        y = c.g().add(y, term)?;
    }
    one(y)
}

/// A tensor whose axes have letters.
struct Lettered {
    value: ValueId,
    letters: Vec<char>,
}

impl Lettered {
    /// The axes in this order.
    fn permuted(&self, c: &mut Call<'_>, letters: &[char]) -> Result<ValueId> {
        let order: Vec<usize> = letters.iter().filter_map(|l| self.letters.iter().position(|x| x == l)).collect();
        Ok(c.g().permute(self.value, &order)?)
    }

    fn size(&self, c: &Call<'_>, letter: char) -> usize {
        self.letters.iter().position(|&x| x == letter).map_or(1, |axis| c.shape(self.value)[axis])
    }

    fn sizes(&self, c: &Call<'_>, letters: &[char]) -> Vec<usize> {
        letters.iter().map(|&letter| self.size(c, letter)).collect()
    }
}

/// Einstein sums of one or two operands, without diagonals: sum, permute, product of matrices.
fn einsum(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let equation: String = c.node.text("equation").unwrap_or_default().chars().filter(|l| *l != ' ').collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, right.chars().collect::<Vec<char>>()),
        None => (equation.as_str(), implicit(&equation)),
    };
    let terms: Vec<Vec<char>> = left.split(',').map(|term| term.chars().collect()).collect();
    if terms.len() > 2 {
        return c.left_out("more than two operands");
    }
    let mut operands = Vec::new();
    for (i, letters) in terms.iter().enumerate() {
        let value = c.x(i)?;
        if letters.contains(&'.') || letters.iter().enumerate().any(|(at, l)| letters[..at].contains(l)) {
            return c.left_out("a diagonal");
        }
        // Letters that nobody else has are summed at once.
        let alone = |l: &char| !right.contains(l) && terms.iter().filter(|term| term.contains(l)).count() == 1;
        let axes: Vec<isize> = (0..letters.len() as isize).filter(|&axis| alone(&letters[axis as usize])).collect();
        let value = if axes.is_empty() { value } else { c.g().reduce(Reduce::Sum, value, &axes, false)? };
        operands.push(Lettered { value, letters: letters.iter().copied().filter(|l| !alone(l)).collect() });
    }
    let result = match <[Lettered; 2]>::try_from(operands) {
        Ok([a, b]) => contract(c, &a, &b, &right)?,
        Err(mut operands) => operands.remove(0),
    };
    one(result.permuted(c, &right)?)
}

fn contract(c: &mut Call<'_>, a: &Lettered, b: &Lettered, right: &[char]) -> Result<Lettered> {
    let of =
        |x: &Lettered, keep: &dyn Fn(&char) -> bool| x.letters.iter().copied().filter(|l| keep(l)).collect::<Vec<_>>();
    let batch = of(a, &|l| b.letters.contains(l) && right.contains(l));
    let summed = of(a, &|l| b.letters.contains(l) && !right.contains(l));
    let (rows, columns) = (of(a, &|l| !b.letters.contains(l)), of(b, &|l| !a.letters.contains(l)));
    let product = |sizes: Vec<usize>| sizes.iter().product::<usize>();
    let [n, m, k, p] = [(a, &batch), (a, &rows), (a, &summed), (b, &columns)].map(|(x, l)| product(x.sizes(c, l)));
    let left = a.permuted(c, &[&batch[..], &rows, &summed].concat())?;
    let left = c.g().reshape(left, [n, m, k])?;
    let right = b.permuted(c, &[&batch[..], &summed, &columns].concat())?;
    let right = c.g().reshape(right, [n, k, p])?;
    let value = c.g().matmul(left, right)?;
    let shape: Shape = [a.sizes(c, &batch), a.sizes(c, &rows), b.sizes(c, &columns)].concat().into();
    Ok(Lettered { value: c.g().reshape(value, shape)?, letters: [batch, rows, columns].concat() })
}

/// Without `->` the result has the letters that occur once, in the order of the alphabet.
fn implicit(equation: &str) -> Vec<char> {
    let mut letters: Vec<char> = equation.chars().filter(|l| *l != ',' && equation.matches(*l).count() == 1).collect();
    letters.sort_unstable();
    letters
}
