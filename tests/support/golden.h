// Reads the golden files (HDF5, made in float64; see tests/golden/README.md). The folder is
// $RODIMUS_GOLDEN, else tests/golden of the source tree; the sizes come from the files, never from
// the test.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace rodimus::testing {

std::filesystem::path golden_folder();

// All files of golden_folder()/sub whose name starts with `prefix`, sorted. Throws if there are
// none: a golden test that finds nothing to compare must fail.
std::vector<std::filesystem::path> golden_files(const std::string& sub, const std::string& prefix);

// The stem of the file name, for test names.
std::string golden_name(const std::filesystem::path& file);

class Golden {
 public:
  explicit Golden(const std::filesystem::path& file);
  ~Golden();
  Golden(const Golden&) = delete;
  Golden& operator=(const Golden&) = delete;

  bool has(const std::string& name) const;
  std::vector<double> array(const std::string& name) const;  // any numeric dataset, row-major
  std::vector<float> f32(const std::string& name) const;
  std::vector<int32_t> i32(const std::string& name) const;
  std::vector<int64_t> shape(const std::string& name) const;
  double scalar(const std::string& name) const;
  bool has_attribute(const std::string& attribute) const;
  double number(const std::string& attribute) const;  // numeric or boolean attribute of the root
  std::string text(const std::string& attribute) const;
  std::vector<std::string> names(const std::string& group) const;  // datasets in a group, sorted

 private:
  int64_t file_;
};

}  // namespace rodimus::testing
