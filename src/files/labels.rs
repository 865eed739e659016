//! Class names, and lists that say which class each picture of a folder shows.

use super::read_bounded;
use planish_graph::error::Context;
use planish_graph::{Error, Result, invalid};
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// The longest list that is read, in bytes.
const MAX_LIST_BYTES: u64 = 256 << 20;

/// The names of a network's classes, in the order of its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassNames(Vec<String>);

impl ClassNames {
    /// Reads the file at `path`: one name a line.
    pub fn read(path: &Path) -> Result<ClassNames> {
        Ok(ClassNames(text(path)?.lines().map(|line| line.trim().to_string()).collect()))
    }
    /// The name of class `index`, or its number where the list has none.
    pub fn name(&self, index: usize) -> String {
        match self.0.get(index) {
            Some(name) if !name.is_empty() => name.clone(),
            _ => format!("class {index}"),
        }
    }
    /// The number of names.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there are no names.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One picture of a [`Listing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// Where the picture is: relative to the pictures' folder, and inside it.
    pub file: PathBuf,
    /// The class that it shows.
    pub class: usize,
}

/// Which class each picture shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// In the order of the file.
    pub pictures: Vec<Labelled>,
}

impl Listing {
    /// Reads the file at `path`: `file<TAB>class` a line, further columns ignored, a first line `file<TAB>class…` as a
    /// heading. A class is a number, or one of `names`.
    pub fn read(path: &Path, names: Option<&ClassNames>) -> Result<Listing> {
        Listing::parse(&text(path)?, names).context(|| path.display().to_string())
    }

    fn parse(text: &str, names: Option<&ClassNames>) -> Result<Listing> {
        let numbers: HashMap<&str, usize> =
            names.iter().flat_map(|n| n.0.iter().enumerate()).map(|(i, n)| (n.as_str(), i)).collect();
        let mut pictures = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let heading = index == 0 && line.split('\t').map(str::trim).take(2).eq(["file", "class"]);
            if heading || line.trim().is_empty() {
                continue;
            }
            pictures.push(Labelled::parse(line, &numbers).context(|| format!("line {}", index + 1))?);
        }
        if pictures.is_empty() {
            invalid!("the list names no picture");
        }
        Ok(Listing { pictures })
    }
}

impl Labelled {
    fn parse(line: &str, numbers: &HashMap<&str, usize>) -> Result<Labelled> {
        let mut columns = line.split('\t').map(str::trim);
        let (Some(file), Some(class)) = (columns.next(), columns.next()) else {
            invalid!("expected a file and a class with a tab between them, found {:?}", shortened(line));
        };
        let file = PathBuf::from(file);
        if file.as_os_str().is_empty()
            || !file.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
        {
            invalid!(
                "{:?} does not name a file inside the pictures' folder",
                shortened(&file.to_string_lossy())
            );
        }
        let class = match numbers.get(class) {
            Some(&number) => number,
            None => class.parse().map_err(|_| {
                Error::invalid(format!(
                    "{:?} is neither a class number nor a known class name",
                    shortened(class)
                ))
            })?,
        };
        Ok(Labelled { file, class })
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn text(path: &Path) -> Result<String> {
    let bytes = read_bounded(path, MAX_LIST_BYTES)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::invalid("not UTF-8 text").at(path.display().to_string()))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_string).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::scratch::Scratch;

    #[test]
    fn names_come_one_a_line() {
        let scratch = Scratch::new();
        let path = scratch.path("names.txt");
        std::fs::write(&path, "\u{feff}tench\r\n\r\ngreat white shark\n").unwrap();
        let names = ClassNames::read(&path).unwrap();
        assert_eq!((names.len(), names.is_empty()), (3, false));
        assert_eq!(
            [names.name(0), names.name(1), names.name(2), names.name(3)],
            ["tench", "class 1", "great white shark", "class 3"]
        );
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(ClassNames::read(&path).unwrap_err().to_string().contains("names.txt"));
    }

    #[test]
    fn lists_name_files_and_classes() {
        let names = ClassNames(vec!["cat".into(), "dog".into()]);
        let list = "file\tclass\tauthor\r\na.jpg\t7\tme\r\n\r\nb/c.jpg\tdog\r\n";
        let listing = Listing::parse(list, Some(&names)).unwrap();
        assert_eq!(
            listing.pictures,
            [Labelled { file: "a.jpg".into(), class: 7 }, Labelled { file: "b/c.jpg".into(), class: 1 }]
        );
        assert_eq!(Listing::parse("file\t3", None).unwrap().pictures[0].class, 3);
    }

    #[test]
    fn lists_stay_inside_the_folder() {
        for bad in [
            "",
            "\n",
            "a.jpg",
            "a.jpg\tdog",
            "a.jpg\t-1",
            "../a.jpg\t1",
            "b/../../a\t1",
            "/etc/passwd\t1",
            "\t1",
        ] {
            assert!(Listing::parse(bad, None).is_err(), "{bad:?}");
        }
        let error = Listing::parse("a.jpg\t1\nb.jpg\tx", None).unwrap_err().to_string();
        assert!(error.starts_with("line 2: "), "{error}");
    }
}
