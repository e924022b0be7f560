//! Storage pools: `admin.pool.*`.

use super::{Call, ReplyError, lines, number, text, text_lines, value};
use crate::{Destination, PoolName, Request};

/// The reply of `admin.pool.Info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolInfo {
    /// Its driver, such as `lvm_thin`.
    pub driver: String,
    /// How many bytes it holds, where the driver tells.
    pub size: Option<u64>,
    /// How many of them are used, where the driver tells.
    pub usage: Option<u64>,
    /// The pool whose room it shares.
    pub included_in: Option<String>,
    /// Every key and value as it came.
    pub config: Vec<(String, String)>,
}

/// The reply of `admin.pool.UsageDetails`, in bytes, where the driver tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUsage {
    /// Room for data.
    pub data_size: Option<u64>,
    /// Room used by data.
    pub data_usage: Option<u64>,
    /// Room for metadata.
    pub metadata_size: Option<u64>,
    /// Room used by metadata.
    pub metadata_usage: Option<u64>,
}

fn request(method: &'static str, pool: &PoolName) -> Request {
    Request::new(method, Destination::Dom0).argument(pool.as_str())
}

fn amount(text: &str, key: &'static str) -> Result<Option<u64>, ReplyError> {
    value(text.lines(), key).ok().map(|found| number(key, found)).transpose()
}

/// The names of all pools.
pub fn list() -> Call<Vec<PoolName>> {
    Call::new(Request::new("admin.pool.List", Destination::Dom0), lines)
}

/// What a pool is and how full it is.
pub fn info(pool: &PoolName) -> Call<PoolInfo> {
    Call::new(request("admin.pool.Info", pool), |content| {
        let text = text(content)?;
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Ok(PoolInfo {
            driver: value(text.lines(), "driver")?.to_owned(),
            size: amount(text, "size")?,
            usage: amount(text, "usage")?,
            included_in: value(text.lines(), "included_in").ok().map(str::to_owned),
            config: text.lines().filter_map(|line| line.split_once('=')).map(owned).collect(),
        })
    })
}

/// How full a pool is.
pub fn usage(pool: &PoolName) -> Call<PoolUsage> {
    Call::new(request("admin.pool.UsageDetails", pool), |content| {
        let text = text(content)?;
        Ok(PoolUsage {
            data_size: amount(text, "data_size")?,
            data_usage: amount(text, "data_usage")?,
            metadata_size: amount(text, "metadata_size")?,
            metadata_usage: amount(text, "metadata_usage")?,
        })
    })
}

/// The volumes in a pool, by the identity that they have there.
pub fn volumes(pool: &PoolName) -> Call<Vec<String>> {
    Call::new(request("admin.pool.volume.List", pool), text_lines)
}

#[cfg(test)]
mod tests {
    use super::super::tests::sent;
    use super::*;

    fn pool() -> PoolName {
        PoolName::parse("varlibqubes").unwrap()
    }

    #[test]
    fn pool_methods_are_aimed_at_dom0() {
        for (bytes, expected) in [
            (sent(&list()), "admin.pool.List+ dom0 name dom0\0"),
            (sent(&info(&pool())), "admin.pool.Info+varlibqubes dom0 name dom0\0"),
            (sent(&usage(&pool())), "admin.pool.UsageDetails+varlibqubes dom0 name dom0\0"),
            (sent(&volumes(&pool())), "admin.pool.volume.List+varlibqubes dom0 name dom0\0"),
        ] {
            assert_eq!(bytes, expected);
        }
        assert_eq!(list().answer(b"0\0varlibqubes\n").unwrap(), [pool()]);
        assert_eq!(
            volumes(&pool()).answer(b"0\0appvms/work/root\n").unwrap(),
            ["appvms/work/root"]
        );
    }

    #[test]
    fn a_pool_tells_its_size_and_its_usage_where_it_can() {
        let reply = b"0\0dir_path=/a=b\ndriver=file-reflink\nsize=25702694912\nusage=376188928\n";
        let found = info(&pool()).answer(reply).unwrap();
        assert_eq!((found.size, found.usage), (Some(25_702_694_912), Some(376_188_928)));
        assert_eq!(found.config[0], ("dir_path".into(), "/a=b".into()));
        let kernel =
            info(&pool()).answer(b"0\0driver=linux-kernel\nincluded_in=varlibqubes\n").unwrap();
        assert_eq!((kernel.size, kernel.included_in.as_deref()), (None, Some("varlibqubes")));
        assert!(info(&pool()).answer(b"0\0").is_err());
        let found = usage(&pool()).answer(b"0\0data_size=10\ndata_usage=3\n").unwrap();
        assert_eq!(
            (found.data_size, found.data_usage, found.metadata_size),
            (Some(10), Some(3), None)
        );
        assert_eq!(usage(&pool()).answer(b"0\0").unwrap().data_size, None);
        assert!(usage(&pool()).answer(b"0\0data_size=x\n").is_err());
    }
}
