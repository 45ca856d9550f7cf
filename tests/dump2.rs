use std::io::Write;
use tilewise::{
    DType, Layout, Shape,
    graph::{Align, Attention, AttentionOperand as A, Window},
    kernel::{
        AdapterKind, AttentionDTypes, AttentionMergeProblem, AttentionProblem, CooperativeMatrix, Problem, Profile,
    },
};
struct R(u64);
impl R {
    fn n(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
    fn of<T: Copy>(&mut self, x: &[T]) -> T {
        x[self.n(x.len())]
    }
}
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
fn decl(text: &str) -> String {
    let mut all = Vec::new();
    let (mut depth, mut now) = (0i32, String::new());
    for line in text.lines() {
        let code = line.split("//").next().unwrap();
        for word in code.split_whitespace() {
            now.push_str(word);
            now.push(' ');
            for c in word.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
            }
            if depth == 0 && (word.ends_with(';') || word.ends_with('}')) {
                all.push(std::mem::take(&mut now));
            }
        }
    }
    all.retain(|d| !d.starts_with("struct Params "));
    all.sort();
    all.join("\n")
}
#[test]
fn dump() {
    let portable = Profile::portable();
    let mut profiles = vec![];
    for kind in [AdapterKind::Cpu, AdapterKind::Gpu] {
        for sub in [None, Some((8, 8)), Some((4, 4)), Some((32, 32)), Some((8, 32))] {
            for wg in [16384u32, 32768, 49152, 8192] {
                for inv in [64u32, 256, 1024] {
                    for driver in ["", "llvmpipe Mesa 26.2.0 (LLVM 22.1.0)"] {
                        for bufs in [8u32, 16] {
                            let mut p = Profile {
                                kind,
                                subgroup: sub,
                                driver: driver.into(),
                                adapter: "llvmpipe".into(),
                                shader_f16: true,
                                shader_int64: wg != 8192,
                                ..portable.clone()
                            };
                            p.cooperative_matrices = [8u32, 16]
                                .iter()
                                .filter(|&&s| wg != 32768 || s == 8)
                                .map(|&s| CooperativeMatrix::square(s, [DType::F16, DType::F32]))
                                .collect();
                            p.limits.workgroup_bytes = wg;
                            p.limits.workgroup_invocations = inv;
                            p.limits.workgroup_size_x = inv;
                            p.limits.storage_buffers = bufs;
                            if inv == 1024 {
                                p.limits.binding_bytes = 1 << 22;
                            }
                            profiles.push(p);
                        }
                    }
                }
            }
        }
    }
    let mut r = R(7);
    let mut out = std::io::BufWriter::new(std::fs::File::create(std::env::var("DUMP").unwrap()).unwrap());
    let count: usize = 12000;
    let mut usable = 0;
    for n in 0..count {
        let p = &profiles[r.n(profiles.len())];
        let packed = r.n(8) == 0;
        let paged = r.n(6) == 0;
        let b = r.of(&[1usize, 1, 2, 3, 16, 64]);
        let group = r.of(&[1usize, 1, 2, 4, 8]);
        let hkv = r.of(&[1usize, 1, 2, 4, 8]);
        let h = group * hkv;
        let tq = r.of(&[0usize, 1, 1, 2, 5, 8, 15, 16, 17, 33, 63, 64, 65, 128, 255, 256, 300, 512, 1024, 4096]);
        let tk = r.of(&[
            0usize, 1, 2, 31, 32, 33, 64, 127, 128, 200, 256, 257, 512, 1024, 2048, 4096, 8192, 20000, 65536, 300000,
            2000000,
        ]);
        let d = r.of(&[0usize, 1, 4, 8, 16, 17, 32, 40, 64, 64, 80, 96, 128, 128, 192, 256, 257]);
        let dv = r.of(&[0usize, 1, 8, 16, 30, 32, 64, 64, 64, 128, 130, 256, 260]);
        let dv = if r.n(2) == 0 { d } else { dv };
        let f = |r: &mut R| r.of(&[DType::F32, DType::F16, DType::F16, DType::BF16]);
        let dt = match r.n(4) {
            0 => AttentionDTypes::all(DType::F32),
            1 | 2 => AttentionDTypes::all(DType::F16),
            _ => AttentionDTypes { q: f(&mut r), k: f(&mut r), v: f(&mut r), bias: f(&mut r), out: f(&mut r) },
        };
        let mut o = Attention::default();
        o.scale = Some(0.5);
        let mut ops = vec![];
        let page = r.of(&[1usize, 16, 32]);
        let each = tk.div_ceil(page);
        let lay = |r: &mut R, s: Vec<usize>| {
            let mut l = Layout::contiguous(Shape::from(&s[..]));
            match r.n(6) {
                0 => l.offset = 1,
                1 => l.offset = 4,
                2 if s.len() == 4 => {
                    l = Layout::contiguous(Shape::from(&[s[0], s[2], s[1], s[3]][..])).permute(&[0, 2, 1, 3]);
                }
                _ => {}
            }
            l
        };
        let q = if packed { lay(&mut r, vec![tq, h, d]) } else { lay(&mut r, vec![b, h, tq, d]) };
        let kv = |r: &mut R, w: usize| {
            if paged {
                lay(r, vec![each + 3, page, hkv, w])
            } else if packed {
                lay(r, vec![tk, hkv, w])
            } else {
                lay(r, vec![b, hkv, tk, w])
            }
        };
        let (k, v) = (kv(&mut r, d), kv(&mut r, dv));
        let seqs = r.of(&[1usize, 2, 5]);
        let items = if packed { seqs } else { b };
        if packed {
            o.operands.push(A::QueryOffsets);
            ops.push(Layout::contiguous([seqs + 1]));
            if !paged {
                o.operands.push(A::KeyOffsets);
                ops.push(Layout::contiguous([seqs + 1]));
            }
        }
        if paged {
            o.operands.push(A::BlockTable);
            ops.push(Layout::contiguous([items, each]));
        }
        let tkk = if paged { each * page } else { tk };
        if !packed {
            if r.n(3) == 0 {
                o.operands.push(A::Mask);
                let s = match r.n(4) {
                    0 => vec![tq, tkk],
                    1 => vec![b, 1, tq, tkk],
                    2 => vec![b, h, tq, tkk],
                    _ => vec![tkk],
                };
                ops.push(Layout::contiguous(Shape::from(&s[..])));
            }
            if r.n(4) == 0 {
                o.operands.push(A::Bias);
                let s = match r.n(2) {
                    0 => vec![tq, tkk],
                    _ => vec![b, h, tq, tkk],
                };
                ops.push(Layout::contiguous(Shape::from(&s[..])));
            }
        }
        if r.n(4) == 0 || paged {
            o.operands.push(A::KeyLengths);
            ops.push(Layout::contiguous([items]));
        }
        if r.n(8) == 0 {
            o.operands.push(A::QueryLengths);
            ops.push(Layout::contiguous([items]));
        }
        if r.n(6) == 0 {
            o.operands.push(A::Slopes);
            ops.push(Layout::contiguous([h]));
        }
        match r.n(5) {
            0 => {
                o.operands.push(A::Offsets);
                ops.push(Layout::contiguous([items]));
                o.align = Align::PerItem;
            }
            1 => o.align = Align::BottomRight,
            2 => o.align = Align::Offset(-3),
            _ => {}
        }
        o.causal = r.n(3) == 0;
        if r.n(5) == 0 {
            o.window = Window { left: Some(100), right: None };
        }
        if r.n(6) == 0 {
            o.softcap = Some(30.0);
        }
        let mut problem = AttentionProblem::new(o, q, k, v, ops);
        problem.dtypes = dt;
        problem.lse = r.n(3) == 0;
        problem.status = r.n(6) == 0;
        if !packed && r.n(3) == 0 && problem.out.shape.rank() == 4 {
            let s = problem.out.shape.clone();
            problem.out = Layout::contiguous(Shape::from(&[s[0], s[2], s[1], s[3]][..])).permute(&[0, 2, 1, 3]);
        }
        let c = problem.candidates(p);
        let mut names: Vec<String> =
            c.iter().map(|c| format!("{}{}", c.variant, if c.is_usable() { "+" } else { "-" })).collect();
        if names.iter().all(|n| n.ends_with('-')) {
            names.sort();
            if names.len() == 1 {
                names = vec!["FAULT".into()];
            }
        }
        let only: Vec<&String> = names.iter().filter(|n| n.ends_with('+')).collect();
        if std::env::var_os("WHY").is_some() {
            for c in &c {
                println!("{n} {c:?}");
            }
        }
        write!(out, "{n} {only:?} ").unwrap();
        for c in c.iter().filter(|c| c.is_usable()) {
            usable += 1;
            match problem.kernel(c.variant, p) {
                Ok(k) => {
                    let t: Vec<String> = k
                        .launches
                        .iter()
                        .map(|l| format!("{} {:?} {:?} {:x}", l.label, l.grid, l.bindings, fnv(&decl(&l.source.wgsl))))
                        .collect();
                    write!(out, "{} {:x} ws{:?};", c.variant, fnv(&format!("{t:?}")), k.scratch).unwrap();
                }
                Err(e) => write!(out, "{} ERR {e};", c.variant).unwrap(),
            }
        }
        writeln!(out).unwrap();
    }
    for n in 0..600 {
        let p = &profiles[r.n(profiles.len())];
        let m = AttentionMergeProblem {
            outs: Shape::from([
                r.of(&[0usize, 1, 2, 5, 32767, 32766, 40000]),
                r.of(&[0usize, 1, 5, 100]),
                r.of(&[0usize, 1, 3, 4, 8, 12, 32, 64, 130]),
            ]),
            lse: r.n(2) == 0,
        };
        let c = m.candidates(p);
        let names: Vec<&str> = c.iter().filter(|c| c.is_usable()).map(|c| c.variant).collect();
        write!(out, "m{n} {names:?}").unwrap();
        for c in names {
            let k = m.kernel(c, p);
            match k {
                Ok(k) => {
                    let l = &k.launches[0];
                    write!(
                        out,
                        " {} {:?} {:x} {:?}",
                        l.label,
                        l.grid,
                        fnv(&decl(&l.source.wgsl)),
                        (l.flops, l.bytes, l.exponentials)
                    )
                    .unwrap()
                }
                Err(e) => write!(out, "{e}").unwrap(),
            }
        }
        writeln!(out).unwrap();
    }
    println!("{usable} usable");
}
