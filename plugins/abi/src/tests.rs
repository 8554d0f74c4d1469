//! The layout that plugins of any age count on.

use super::*;
use core::mem::{offset_of, size_of};

macro_rules! layout {
    ($type:ty, $size:expr, $($field:ident = $offset:expr),*) => {
        assert_eq!(size_of::<$type>(), $size, stringify!($type));
        $(assert_eq!(offset_of!($type, $field), $offset, concat!(stringify!($type), ".", stringify!($field)));)*
    };
}

/// Version 1.3 on 64-bit machines. Numbers here never change; new fields add a line and raise a size.
#[test]
#[cfg(target_pointer_width = "64")]
fn the_layout_of_version_1() {
    layout!(Str, 16, data = 0, length = 8);
    layout!(Message, 32, role = 0, content = 16);
    layout!(ErrorText, 32, struct_size = 0, data = 8, capacity = 16, length = 24);
    layout!(
        Plugin,
        64,
        struct_size = 0,
        version_major = 8,
        version_minor = 12,
        name = 16,
        version = 32,
        components = 48,
        component_count = 56
    );
    layout!(
        Component,
        88,
        struct_size = 0,
        kind = 8,
        flags = 12,
        name = 16,
        summary = 32,
        schema = 48,
        create = 64,
        destroy = 72,
        functions = 80
    );
    layout!(SamplerFns, 24, struct_size = 0, sample = 8, feedback = 16);
    layout!(Conditioning, 40, struct_size = 0, messages = 8, message_count = 16, objectives = 24, objective_count = 32);
    layout!(MessageSink, 24, struct_size = 0, context = 8, push = 16);
    layout!(ConditionerFns, 24, struct_size = 0, render = 8, parse = 16);
    layout!(Sample, 64, struct_size = 0, prompt = 8, prompt_count = 16, completion = 24, row = 40, finished = 56);
    layout!(RewardFns, 24, struct_size = 0, score = 8, score_some = 16);
    layout!(LabelFns, 16, struct_size = 0, label = 8);
    layout!(
        Pairs,
        144,
        struct_size = 0,
        count = 8,
        objectives = 16,
        policy_first = 24,
        policy_second = 32,
        reference_first = 40,
        reference_second = 48,
        tokens_first = 56,
        tokens_second = 64,
        label = 72,
        weights = 80,
        margins = 88,
        other_policy_first = 96,
        other_policy_second = 104,
        other_reference_first = 112,
        other_reference_second = 120,
        d_other_first = 128,
        d_other_second = 136
    );
    layout!(LossFns, 24, struct_size = 0, evaluate = 8, beta = 16);
    layout!(Duel, 56, struct_size = 0, prompt = 8, prompt_count = 16, first = 24, second = 40);
    layout!(JudgeFns, 16, struct_size = 0, judge = 8);
    assert_eq!([VERDICT_TIE, VERDICT_FIRST, VERDICT_SECOND, VERDICT_SKIPPED], [0, 1, 2, 3]);
}
