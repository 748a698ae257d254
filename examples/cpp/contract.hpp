// What a package says of its input, as unpack.py writes it: a word and its values a line.
#pragma once

#include <array>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Contract {
    int64_t batch = 0;                          // 0: any; otherwise a run takes exactly so many
    int height = 0, width = 0, channels = 0;    // of the input: uint8[batch, height, width, channels], 0..255
    int64_t classes = 0;
    bool exact = false;                         // run in exact arithmetic: see session_options
    std::string resize, interpolation;
    int box_height = 0, box_width = 0;          // what a picture is resized to meet
    bool floored = false;                       // half of an odd number of px that is cut off: down, not to even
    std::array<uint8_t, 3> fill{};              // the colour of padding, red first
    bool bgr = false;                           // the network reads blue first
    int64_t golden = 0;
    double atol = 0, rtol = 0;
    std::vector<std::string> labels;
};

inline Contract read_contract(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error(path + ": cannot be read; make it with unpack.py");
    Contract c;
    std::string line, word, order, offset;
    int version = 0;
    while (std::getline(file, line)) {
        std::istringstream values(line);
        values >> word;
        if (word == "label") {
            c.labels.push_back(line.size() > 6 ? line.substr(6) : "");
            continue;
        }
        if (word == "contract") values >> version;
        else if (word == "batch") values >> c.batch;
        else if (word == "size") values >> c.height >> c.width >> c.channels;
        else if (word == "classes") values >> c.classes;
        else if (word == "exact") values >> c.exact;
        else if (word == "resize") values >> c.resize;
        else if (word == "box") values >> c.box_height >> c.box_width;
        else if (word == "crop_offset") { values >> offset; c.floored = offset == "floor"; }
        else if (word == "interpolation") values >> c.interpolation;
        else if (word == "fill") for (int k = 0, n; k < c.channels && values >> n; ++k) c.fill[k] = uint8_t(n);
        else if (word == "color_order") { values >> order; c.bgr = order == "bgr"; }
        else if (word == "golden") values >> c.golden;
        else if (word == "tolerance") values >> c.atol >> c.rtol;
        if (!values) throw std::runtime_error(path + ": the line \"" + line + "\" lacks a value");
    }
    if (version < 1 || version > 2 || (c.channels != 1 && c.channels != 3) || int64_t(c.labels.size()) != c.classes)
        throw std::runtime_error(path + ": is no contract that this program reads");
    return c;
}
