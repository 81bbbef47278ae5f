//! `gemmactl memory plan`: what each model would take, as a table with bars.

use std::fmt::Write;

use serde::Deserialize;

use super::args::PlanArgs;
use super::client::Client;
use super::error::Error;
use super::show::{parse, pretty, promptly, show_size};
use super::table::table;
use super::text::{self, Stream, Terminal};

/// Cells of a bar.
const BAR: usize = 24;
/// What a bar is drawn with: what cannot be evicted, weights, and what is over the budget.
const BLOCKS: [char; 4] = ['█', '▒', '░', '·'];
const ASCII: [char; 4] = ['#', '+', '!', '.'];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Plan {
    free: u64,
    bound: String,
    reserve: u64,
    budget: u64,
    experts_percent: u64,
    no_packed_file: Option<String>,
    models: Vec<Model>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Model {
    id: String,
    variant: String,
    installed: bool,
    size: u64,
    quantization: String,
    projector: u64,
    drafter: u64,
    context_floor: Option<u64>,
    context_ceiling: Option<u64>,
    plans: Vec<Way>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Way {
    context: u64,
    fits: bool,
    packed_weights: String,
    total: u64,
    unevictable: u64,
    parts: Parts,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Parts {
    experts: u64,
}

pub async fn plan(
    client: &dyn Client,
    args: &PlanArgs,
    json: bool,
    terminal: &Terminal,
) -> Result<Vec<u8>, Error> {
    let mut plan = promptly(client.plan(args.ctx, args.ram)).await?;
    if let Some(models) = plan
        .get_mut("models")
        .and_then(|models| models.as_array_mut())
    {
        models.retain(|model| {
            ["id", "variant"]
                .iter()
                .any(|key| is_meant(args.model.as_deref(), model[*key].as_str()))
        });
        if models.is_empty() {
            let asked = args.model.as_deref().unwrap_or_default();
            return Err(Error::Usage(format!(
                "no variant and no installed model is called `{asked}`; `gemmactl memory plan` shows all"
            )));
        }
    }
    if json {
        return Ok(pretty(&plan, terminal));
    }
    let palette = if text::speaks_utf8() { BLOCKS } else { ASCII };
    let supposed = args.ram.is_some();
    Ok(view(&parse(plan)?, supposed, terminal.out, palette).into_bytes())
}

/// Whether a name is, or is a part of, what was asked for: `e2b` means the variant and all its
/// files.
fn is_meant(asked: Option<&str>, name: Option<&str>) -> bool {
    let plain = |name: &str| {
        name.to_ascii_lowercase()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .replace(':', "-")
            .trim_end_matches("-it")
            .to_owned()
    };
    asked.is_none_or(|asked| name.is_some_and(|name| plain(name).contains(&plain(asked))))
}

/// `supposed`: the free memory is what `--ram` says.
fn view(plan: &Plan, supposed: bool, out: Stream, palette: [char; 4]) -> String {
    let head = [
        "MODEL",
        "FILE",
        "WEIGHTS",
        "CONTEXT",
        "UNEVICTABLE",
        "TOTAL",
        "",
        "",
    ];
    let mut view = table(head, rows(plan, palette).into_iter(), &[1, 3, 4, 5], out);
    let sees = plan.models.iter().filter(|model| model.projector > 0);
    // Writing to a string does not fail.
    for model in sees {
        let _ = writeln!(
            view,
            "pictures for {}: {} more",
            out.clean(&model.id),
            show_size(model.projector)
        );
    }
    for model in plan.models.iter().filter(|model| model.drafter > 0) {
        let _ = writeln!(
            view,
            "the drafter of {}: {} more, where they fit",
            out.clean(&model.id),
            show_size(model.drafter)
        );
    }
    view.push_str(&growth(plan, out));
    view.push_str(&of_experts(plan));
    view.push_str(&without_file(plan, out));
    let (free, reserve, budget) = (
        show_size(plan.free),
        show_size(plan.reserve),
        show_size(plan.budget),
    );
    let bound = match supposed {
        true => "supposed to be free (--ram), whatever is free now".into(),
        false => out.clean(&plan.bound),
    };
    let _ = writeln!(
        view,
        "{free} {bound}, {reserve} of them left to other programs: {budget} for a model"
    );
    view
}

/// A row for each context of each model.
fn rows(plan: &Plan, palette: [char; 4]) -> Vec<[String; 8]> {
    let ways = || plan.models.iter().flat_map(|model| &model.plans);
    let most = ways().map(|way| way.total).max().unwrap_or(0);
    let most = most.min(4 * plan.budget.max(1));
    let mut rows = vec![];
    for model in &plan.models {
        let (name, file) = if model.installed {
            (model.id.clone(), show_size(model.size))
        } else {
            let about = format!("~{}", show_size(model.size));
            (format!("{} (not installed)", model.id), about)
        };
        for (index, way) in model.plans.iter().enumerate() {
            let first = |text: &str| {
                if index == 0 {
                    text.to_owned()
                } else {
                    String::new()
                }
            };
            rows.push([
                first(&name),
                first(&file),
                first(&model.quantization),
                way.context.to_string(),
                show_size(way.unevictable),
                show_size(way.total),
                verdict(way).to_owned(),
                bar(way, plan.budget, most, palette),
            ]);
        }
    }
    rows
}

/// How far contexts grow.
fn growth(plan: &Plan, out: Stream) -> String {
    let spans = plan.models.iter().filter_map(|model| {
        let (floor, ceiling) = (model.context_floor?, model.context_ceiling?);
        let line = format!(
            "a request to {} can have {floor} tokens of context in any case, and up to {ceiling} as it needs them\n",
            out.clean(&model.id)
        );
        (floor < ceiling).then_some(line)
    });
    spans.collect()
}

/// How much of the experts is counted, where there are some. What is packed in memory is counted
/// whole.
fn of_experts(plan: &Plan) -> String {
    let mut ways = plan.models.iter().flat_map(|model| &model.plans);
    if !ways.any(|way| way.parts.experts > 0 && way.packed_weights != "memory") {
        return String::new();
    }
    let part = match plan.experts_percent {
        33 => "a third".to_owned(),
        percent => format!("{percent} %"),
    };
    format!(
        "of experts {part} is counted; the others are read from the disk when they are needed\n"
    )
}

/// What is to be said where no file can hold a model's packed weights.
fn without_file(plan: &Plan, out: Stream) -> String {
    let mut ways = plan.models.iter().flat_map(|model| &model.plans);
    if !ways.any(|way| ["memory", "none"].contains(&way.packed_weights.as_str())) {
        return String::new();
    }
    let why = plan.no_packed_file.as_deref();
    format!(
        "packed weights cannot be kept in a file ({}): they are packed in memory, which cannot be evicted, or not packed, which is slower\n",
        out.clean(why.unwrap_or("the disk has too little space"))
    )
}

/// Whether it fits, and where its packed weights are if not in a file.
fn verdict(way: &Way) -> &'static str {
    match (way.fits, way.packed_weights.as_str()) {
        (false, "none") => "no, even if not packed",
        (false, _) => "no",
        (true, "memory") => "fits, packed in memory",
        (true, "none") => "fits, not packed",
        (true, _) => "fits",
    }
}

/// The total as a bar: what cannot be evicted, then weights, then what is over the budget.
fn bar(way: &Way, budget: u64, most: u64, [fixed, weights, over, room]: [char; 4]) -> String {
    let cells = |bytes: u64| {
        ((bytes as u128 * BAR as u128).div_ceil(most.max(1) as u128) as usize).min(BAR)
    };
    let (total, inside, unevictable) = (
        cells(way.total),
        cells(way.total.min(budget)),
        cells(way.unevictable),
    );
    let cell = |index: usize| match index {
        _ if index >= total && index < cells(budget) => room,
        _ if index >= total => ' ',
        _ if index >= inside => over,
        _ if index < unevictable => fixed,
        _ => weights,
    };
    (0..BAR).map(cell).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PLAIN: Stream = Stream {
        is_terminal: false,
        colour: false,
    };

    fn gib(tenths: u64) -> u64 {
        tenths * (1 << 30) / 10
    }

    #[test]
    fn models_stand_in_columns_with_bars() {
        let way = |context: u32, total, fits| json!({"context": context, "fits": fits, "total": total, "unevictable": gib(2), "parts": {"experts": 0}});
        let plan = json!({"free": gib(21), "bound": "available on this machine", "reserve": gib(1), "budget": gib(20), "experts_percent": 33, "models": [
            {"id": "e2b-q4", "installed": true, "size": gib(28), "quantization": "Q4_0", "projector": gib(9), "drafter": gib(1), "context_floor": 2048, "context_ceiling": 65536, "plans": [way(4096, gib(16), true), way(32768, gib(18), true)]},
            {"id": "gemma-4-e4b", "size": gib(44), "quantization": "Q4_0", "plans": [way(4096, gib(30), false)]},
        ]});
        let view = view(&parse(plan).unwrap(), false, PLAIN, ASCII);
        let expected = "\
MODEL                            FILE  WEIGHTS  CONTEXT  UNEVICTABLE    TOTAL
e2b-q4                        2.8 GiB  Q4_0        4096    204.8 MiB  1.6 GiB  fits  ##+++++++++++...
                                                  32768    204.8 MiB  1.8 GiB  fits  ##+++++++++++++.
gemma-4-e4b (not installed)  ~4.4 GiB  Q4_0        4096    204.8 MiB  3.0 GiB  no    ##++++++++++++++!!!!!!!!
pictures for e2b-q4: 921.6 MiB more
the drafter of e2b-q4: 102.4 MiB more, where they fit
a request to e2b-q4 can have 2048 tokens of context in any case, and up to 65536 as it needs them
2.1 GiB available on this machine, 102.4 MiB of them left to other programs: 2.0 GiB for a model
";
        assert_eq!(view, expected);
    }

    #[test]
    fn what_is_counted_and_what_is_supposed_is_said() {
        let plan = |packed: &str, experts: u64| {
            let way = json!({"context": 4096, "total": gib(10), "packed_weights": packed, "parts": {"experts": experts}});
            let plan = json!({"free": gib(40), "bound": "supposed to be free", "reserve": gib(5), "budget": gib(35), "experts_percent": 33,
                "models": [{"id": "26b", "plans": [way]}]});
            view(&parse(plan).unwrap(), true, PLAIN, ASCII)
        };
        let third = "of experts a third is counted; the others are read from the disk";
        assert!(plan("file", 1).contains(third));
        assert!(plan("none", 1).contains(third));
        assert!(!plan("file", 0).contains("experts"));
        assert!(!plan("memory", 1).contains(third));
        assert!(plan("file", 0).ends_with(
            "4.0 GiB supposed to be free (--ram), whatever is free now, 512.0 MiB of them left to other programs: 3.5 GiB for a model\n"
        ));
    }

    #[test]
    fn models_are_meant_by_any_part_of_their_name() {
        assert!(is_meant(None, Some("x")) && is_meant(Some("E2B"), Some("gemma-4-e2b")));
        assert!(is_meant(
            Some("google/gemma-4-26b-a4b-it"),
            Some("gemma-4-26b-a4b")
        ));
        assert!(!is_meant(Some("e4b"), Some("gemma-4-e2b")) && !is_meant(Some("e4b"), None));
    }
}
