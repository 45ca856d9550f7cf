//! The names of what a training step has beside its model.

/// The numbers of a step, an input.
pub(super) const RATES: &str = "train/rates";
/// What dropouts draw from, an input.
pub(super) const SEED: &str = "train/seed";
/// The loss of a step; of a micro-batch, what its losses sum to.
pub(super) const LOSS: &str = "train/loss";
/// What the losses were summed over.
pub(super) const WEIGHT: &str = "train/weight";
/// The root of the sum of the squares of all gradients.
pub(super) const NORM: &str = "train/norm";
/// The loss scale of the next step, a state.
pub(super) const SCALE: &str = "train/scale";
/// That of this step, an output.
pub(super) const SCALED_BY: &str = "train/scaled_by";
/// Steps in a row that were taken since the scale changed.
pub(super) const GOOD_STEPS: &str = "train/good_steps";
/// Steps that were taken, and not skipped.
pub(super) const TAKEN: &str = "train/taken";
/// The losses of the micro-batches so far.
pub(super) const LOSS_SUM: &str = "train/loss_sum";
/// Their weights.
pub(super) const WEIGHT_SUM: &str = "train/weight_sum";
/// The turn in which a run was refused, a state: the runs of that turn that come after it do nothing.
pub(super) const STOPPED: &str = "train/stopped";
/// In a checkpoint, how many steps were taken: the low and the high word.
pub(super) const STEPS: &str = "train/steps";
/// In a checkpoint, how many micro-batches of the next step were given.
pub(super) const MICRO_BATCHES: &str = "train/micro_batches";

/// The sum of a parameter's gradients over the micro-batches so far.
pub(super) fn grad_sum(parameter: &str) -> String {
    format!("grad_sum/{parameter}")
}

/// Whether a checkpoint has a state, after so many micro-batches of a step: between steps, what they sum to is zero.
pub(super) fn is_kept(state: &str, micro_batches: usize) -> bool {
    let sum = state == LOSS_SUM || state == WEIGHT_SUM || state.starts_with("grad_sum/");
    state != STOPPED && (micro_batches > 0 || !sum)
}

/// The parameter in f32 that one of f16 or bf16 is rounded from.
pub(super) fn master(parameter: &str) -> String {
    format!("master/{parameter}")
}
