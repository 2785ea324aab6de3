//! How fast selectors are parsed and matched: one path against each kind, and the paths of a real
//! tree against a session's selections.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quorate::domain::selector::{Selections, Selector};
use quorate::domain::topic::path::TopicPath;

const KINDS: [(&str, &str); 9] = [
    ("path", ">flights/EWR/UA/1545/2013-01-01"),
    ("everything", "?.*//"),
    ("branch", "?flights/EWR//"),
    ("other_branch", "?weather/EWR//"),
    ("segments", "?flights/.*/UA/.*/.*"),
    ("gaps", "?flights/E.*R/.*/1.*5/.*"),
    ("expression", "?flights/(EWR|JFK)/[A-Z]{2}/[0-9]+/2013-01-[0-9]{2}"),
    ("full", "*flights/.*/2013-01-01"),
    ("full_expression", "*flights/[A-Z]+/.*[0-9]{4}-01-01"),
];

fn matching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("selector_matching");
    let path = TopicPath::parse("flights/EWR/UA/1545/2013-01-01").expect("a legal path");
    for (name, text) in KINDS {
        let selector = Selector::parse(text).expect("a legal selector");
        group.bench_function(name, |bench| {
            bench.iter(|| black_box(&selector).matches(black_box(&path)));
        });
    }
    group.finish();
}

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("selector_parsing");
    for (name, text) in KINDS {
        group.bench_function(name, |bench| bench.iter(|| Selector::parse(black_box(text))));
    }
    group.finish();
}

fn selections(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("selections");
    let paths: Vec<TopicPath> = (0..1_000)
        .map(|n| TopicPath::parse(&format!("topic/{}/{n}", n % 10)).expect("a legal path"))
        .collect();
    group.throughput(Throughput::Elements(paths.len() as u64));
    for count in [1_usize, 100] {
        let mut selections = Selections::default();
        for number in 0..count {
            let selector = Selector::parse(&format!("?topic/.*/{number}")).expect("legal");
            selections.add("", true, selector).expect("within the limits");
        }
        group.bench_function(format!("match_{count}"), |bench| {
            bench.iter(|| paths.iter().filter(|path| selections.matches(path)).count());
        });
        group.bench_function(format!("add_to_{count}"), |bench| {
            let selector = Selector::parse("?topic/.*/new").expect("legal");
            bench.iter_batched(
                || (selections.clone(), selector.clone()),
                |(mut selections, selector)| selections.add("", true, selector),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, matching, parsing, selections);
criterion_main!(benches);
